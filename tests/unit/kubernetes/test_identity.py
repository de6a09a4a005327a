# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who we are: the precedence of every source of credentials, and none of them in a message."""

from __future__ import annotations

import gc
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.certificates import Trust
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.credentials import (
    StaticSource,
    make_basic,
    make_bearer,
)
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.files import PemSource

from .access_cases import (
    EXEC_API,
    make_certificate,
    make_document,
    make_plugin,
    read_authorization,
    resolve,
    write_kubeconfig,
    write_text,
)

PASSWORD = {"password": "pw"}
BASIC = "Basic bWU6cHc="  # me:pw
CANARY = "canary-3fe9"


def resolve_user(folder: Path, user: dict[str, Any], **options: Any) -> ClusterAccess:
    """The access of a kubeconfig's user."""
    return resolve(folder, {"kubeconfig": write_kubeconfig(folder, user=user), **options})


def find_certificate(access: ClusterAccess) -> tuple[str | None, str | None]:
    """The paths of certificate and key that would be shown."""
    current = access._obtain()
    return current.certificate.path, current.key.path


# --- precedence -----------------------------------------------------------------------------------------------------


def test_precedence_within_a_kubeconfig(tmp_path: Path) -> None:
    """Token file, token, then plugins, as with kubectl; a certificate goes with each."""
    write_text(tmp_path / "token", "fromfile\n")
    plugin = make_plugin(tmp_path, {"token": "issued"})
    pair = {"client-certificate": "/c", "client-key": "/k"}
    every = {"token": "t", "tokenFile": "token", **plugin, **pair}
    for keys, expected in (
        (("token", "tokenFile", "exec"), "Bearer fromfile"),
        (("token", "exec"), "Bearer t"),
        (("exec",), "Bearer issued"),
        ((), ""),
    ):
        user = {key: every[key] for key in (*keys, *pair)}
        access = resolve_user(tmp_path, user)
        assert read_authorization(access) == expected
        assert find_certificate(access) == ("/c", "/k")
    access = resolve_user(tmp_path, {"username": "me", "password": "pw", **pair, **plugin})
    assert (read_authorization(access), find_certificate(access)) == (BASIC, ("/c", "/k"))
    assert read_authorization(resolve_user(tmp_path, {"username": "me"})) == "Basic bWU6"


def test_options_take_the_place_of_everything(tmp_path: Path) -> None:
    """A plugin is not run, a certificate of somebody else not shown: the server would take it before the token."""
    user = {"client-certificate": "/c", "client-key": "/k", **make_plugin(tmp_path, code="raise SystemExit(1)")}
    for base in (user, {**user, "token": "t"}, {**user, "tokenFile": "/nowhere"}, {"username": "u", "password": "p"}):
        access = resolve_user(tmp_path, base, api_key="mine")
        assert (read_authorization(access), find_certificate(access)) == ("Bearer mine", (None, None))
        access = resolve_user(tmp_path, base, username="me", **PASSWORD)
        assert (read_authorization(access), find_certificate(access)) == (BASIC, (None, None))
        access = resolve_user(tmp_path, base, client_cert="/mine", client_key="/mykey")
        assert (read_authorization(access), find_certificate(access)) == ("", ("/mine", "/mykey"))
        access = resolve_user(tmp_path, base, client_cert="/mine")
        assert find_certificate(access) == ("/mine", None)
        assert not access.can_renew


def test_options_add_up(tmp_path: Path) -> None:
    """A token beside a certificate, a key for the kubeconfig's certificate."""
    access = resolve_user(tmp_path, {"token": "t"}, api_key="mine", client_cert="/c", client_key="/k")
    assert (read_authorization(access), find_certificate(access)) == ("Bearer mine", ("/c", "/k"))
    access = resolve_user(tmp_path, {"username": "u"}, username="me", client_cert="/c", client_key="/k", **PASSWORD)
    assert (read_authorization(access), find_certificate(access)) == (BASIC, ("/c", "/k"))
    access = resolve_user(tmp_path, {"client-certificate": "/c", "client-key": "/k"}, client_key="/mykey")
    assert find_certificate(access) == ("/c", "/mykey")


@pytest.mark.parametrize(
    ("user", "options", "problem"),
    [
        ({}, {"client_key": "/k"}, "client_key from the option client_key: there is no client certificate"),
        ({}, {"api_key": "a", "username": "me", "password": "pw"}, "only one of them can be sent"),
        ({}, {"username": "me"}, "the option username: username and password are not both given"),
        ({}, {"password": "pw"}, "the option password: username and password are not both given"),
        ({"token": "t", "username": "me"}, {}, "it has both a token and a user name"),
        ({"tokenFile": "/t", "username": "me"}, {}, "it has both a token and a user name"),
        ({"exec": {"command": "x"}, "auth-provider": {"name": "oidc"}}, {}, "it has both exec and auth-provider"),
        ({"auth-provider": {"name": "azure"}}, {}, "its auth-provider is 'azure', and only oidc is known"),
        (
            {"exec": {"command": "login", "interactiveMode": "Always"}},
            {},
            r"its credential plugin login needs a terminal \(interactiveMode: Always\)",
        ),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, user: dict[str, Any], options: dict[str, Any], problem: str
) -> None:
    """Rather than one of two being ignored."""
    with pytest.raises(Refusal, match=problem):
        resolve_user(tmp_path, user, **options)


# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [f"{CANARY}\n", f"  {CANARY}\t\r\n"])
def test_blanks_around_a_token_are_dropped(tmp_path: Path, token: str) -> None:
    """From every source."""
    write_text(tmp_path / "token", token)
    plugin = make_plugin(tmp_path, {"token": token})
    for access in (
        resolve(tmp_path, {"host": "https://h", "api_key": token}),
        resolve(tmp_path, {"host": "https://h"}, {"K8S_AUTH_API_KEY": token}),
        resolve_user(tmp_path, {"token": token}),
        resolve_user(tmp_path, {"tokenFile": "token"}),
        resolve_user(tmp_path, plugin),
    ):
        assert read_authorization(access) == f"Bearer {CANARY}"


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (f"a\n{CANARY}", "control characters, blanks"),
        (f"{CANARY} b", "control characters, blanks"),
        (f"{CANARY}é", "letters outside ASCII"),
        (f"{CANARY}\0", "control characters"),
        (f"Bearer {CANARY}", "it begins with 'Bearer'"),
        (" \n", "it is empty"),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, token: str, problem: str) -> None:
    """From every source, which is named."""
    (tmp_path / "token").write_text(token, encoding="utf-8")
    sources: list[tuple[str, Any]] = [
        ("the option api_key", lambda: resolve(tmp_path, {"host": "https://h", "api_key": token})),
        ("user 'u' of kubeconfig", lambda: resolve_user(tmp_path, {"token": token})),
        (f"file {tmp_path}/token", lambda: read_authorization(resolve_user(tmp_path, {"tokenFile": "token"}))),
    ]
    if "\0" not in token and token.strip():
        plugin = make_plugin(tmp_path, {"token": token})
        sources.append(("the plugin of user 'u'", lambda: read_authorization(resolve_user(tmp_path, plugin))))
    for source, attempt in sources:
        with pytest.raises(Refusal, match=problem) as caught:
            attempt()
        assert f"the token from {source}" in str(caught.value)
        assert CANARY not in str(caught.value)


def test_a_token_file_is_read_again_when_renewed(tmp_path: Path) -> None:
    """And only then; one that has gone is named."""
    path = Path(write_text(tmp_path / "token", "first"))
    access = resolve_user(tmp_path, {"tokenFile": "token"})
    assert (read_authorization(access), access.can_renew) == ("Bearer first", True)
    path.write_text("second", encoding="utf-8")
    assert read_authorization(access) == "Bearer first"
    assert read_authorization(access, renew=True) == "Bearer second"
    assert access.secrets() == ["first", "second"]
    path.unlink()
    with pytest.raises(Refusal, match=f"file {path}: it cannot be read: No such file"):
        access.credentials(True)


def test_secrets_are_known(tmp_path: Path) -> None:
    """For ``no_log_values``: fixed ones from the start, others once they were obtained; the proxy's too."""
    assert resolve(tmp_path, {"host": "https://h", "api_key": "mine"}).secrets() == ["mine"]
    assert resolve_user(tmp_path, {"username": "me", "password": "pw"}).secrets() == ["bWU6cHc=", "pw"]
    access = resolve(tmp_path, {"host": "https://h", "proxy": "http://u:secret@p"})
    assert access.secrets() == ["secret"]
    access = resolve_user(tmp_path, make_plugin(tmp_path, {"token": "issued"}))
    assert access.secrets() == []
    access.credentials()
    assert access.secrets() == ["issued"]


# --- without TLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": CANARY},
        {"username": "me", "password": CANARY},
        {"client_cert": "/c"},
        {"kubeconfig": "token"},
        {"kubeconfig": "tokenFile"},
        {"kubeconfig": "exec"},
        {"kubeconfig": "username"},
        {"kubeconfig": "client-certificate"},
        {"kubeconfig": "client-certificate-data"},
        {"kubeconfig": "auth-provider"},
    ],
)
def test_no_credential_is_sent_without_tls(tmp_path: Path, options: dict[str, Any]) -> None:
    """Whatever it is, but to this machine itself, and not through a proxy elsewhere."""
    values: dict[str, Any] = {
        "exec": {"command": "x"},
        "auth-provider": {"name": "oidc"},
        "client-certificate": "/c",
        "client-certificate-data": "AAAA",
    }
    key = options.get("kubeconfig")

    def resolve_at(server: str, **more: str) -> ClusterAccess:
        if key is None:
            return resolve(tmp_path, {**options, **more, "host": server})
        document = make_document(cluster={"server": server}, user={key: values.get(key, CANARY)})
        return resolve(tmp_path, {**more, "kubeconfig": document if key != "tokenFile" else _at(tmp_path, document)})

    for server in ("http://10.0.0.1:8080", "http://localhost.example.org"):
        with pytest.raises(
            Refusal, match=f"API server {server} .*credentials would be sent to it without TLS"
        ) as caught:
            resolve_at(server)
        assert CANARY not in str(caught.value)
    for server in ("http://127.0.0.1:8001", "http://localhost:8001", "https://10.0.0.1"):
        resolve_at(server)
    with pytest.raises(Refusal, match="without TLS"):
        resolve_at("http://127.0.0.1:8001", proxy="http://10.0.0.9:3128")
    resolve_at("http://127.0.0.1:8001", proxy="http://127.0.0.1:3128")
    resolve_at("https://10.0.0.1", proxy="http://10.0.0.9:3128")


def _at(folder: Path, document: dict[str, Any]) -> str:
    return write_text(folder / "config", yaml.safe_dump(document))


def test_nobody_may_speak_without_tls(tmp_path: Path) -> None:
    """Where there is nothing to lose."""
    assert not resolve(tmp_path, {"host": "http://10.0.0.1:8080"}).secure
    assert not resolve(tmp_path, {"kubeconfig": make_document(cluster={"server": "http://h"}, user={})}).secure


# --- impersonation --------------------------------------------------------------------------------------------------


def test_impersonation_of_a_kubeconfig(tmp_path: Path) -> None:
    """With groups, uid and attributes, whose names are escaped."""
    user = {
        "token": "t",
        "as": "jane é",
        "as-uid": "u-1",
        "as-groups": ["a", "b"],
        "as-user-extra": {"acme.com/project%": ["x", "y"], "scopes": ["z"]},
    }
    assert resolve_user(tmp_path, user).impersonation == (
        ("Impersonate-User", "jane é".encode().decode("latin-1")),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-acme.com%2Fproject%25", "x"),
        ("Impersonate-Extra-acme.com%2Fproject%25", "y"),
        ("Impersonate-Extra-scopes", "z"),
    )


def test_impersonation_by_options(tmp_path: Path) -> None:
    """Another user has none of the kubeconfig's attributes; other groups are for the same user."""
    user = {"token": "t", "as": "jane", "as-uid": "1", "as-groups": ["a"], "as-user-extra": {"k": ["v"]}}
    joe = resolve_user(tmp_path, user, impersonate_user="joe")
    assert joe.impersonation == (("Impersonate-User", "joe"),)
    joe = resolve_user(tmp_path, user, impersonate_user="joe", impersonate_groups=["b", "c"])
    assert joe.impersonation == (("Impersonate-User", "joe"), ("Impersonate-Group", "b"), ("Impersonate-Group", "c"))
    jane = resolve_user(tmp_path, user, impersonate_groups=["b"])
    assert jane.impersonation == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "1"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-k", "v"),
    )
    assert resolve_user(tmp_path, {"token": "t"}, impersonate_groups=[]).impersonation == ()


@pytest.mark.parametrize(
    ("user", "options"),
    [
        ({"as-groups": ["a"]}, {}),
        ({"as-uid": "1"}, {}),
        ({"as-user-extra": {"k": ["v"]}}, {}),
        ({}, {"impersonate_groups": ["a"]}),
    ],
)
def test_groups_without_a_user_are_refused(tmp_path: Path, user: dict[str, Any], options: dict[str, Any]) -> None:
    """The server would not know whose."""
    with pytest.raises(Refusal, match="but not as which user"):
        resolve_user(tmp_path, user, **options)


@pytest.mark.parametrize(
    "user",
    [
        {"as": "a\nX-Header: b"},
        {"as": "a", "as-uid": "\r"},
        {"as": "a", "as-groups": ["\0"]},
        {"as": "a", "as-groups": [""]},
        {"as": "a", "as-user-extra": {"k": ["\x7f"]}},
        {"as": "a", "as-user-extra": {"k": "v"}},
    ],
)
def test_impersonation_that_is_no_header_is_refused(tmp_path: Path, user: dict[str, Any]) -> None:
    """Another header must not be made of it."""
    with pytest.raises(Refusal):
        resolve_user(tmp_path, user)


# --- plugins --------------------------------------------------------------------------------------------------------


def test_exec_plugin(tmp_path: Path) -> None:
    """A real program; asked once, and again when renewed."""
    counter = tmp_path / "count"
    code = f"""
path = pathlib.Path({str(counter)!r})
number = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(number))
print(json.dumps({{"apiVersion": {EXEC_API!r}, "kind": "ExecCredential", "status": {{"token": "issued-%d" % number}}}}))
"""
    access = resolve_user(tmp_path, make_plugin(tmp_path, code=code))
    assert not counter.exists()
    assert access.can_renew
    assert [read_authorization(access) for _time in range(2)] == ["Bearer issued-1"] * 2
    assert read_authorization(access, renew=True) == "Bearer issued-2"
    assert access.secrets() == ["issued-1", "issued-2"]


def test_exec_plugin_with_a_relative_command_and_cluster_information(tmp_path: Path) -> None:
    """The command is looked for beside its kubeconfig; the plugin is told the cluster."""
    code = f"""
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"]["cluster"]
token = info["server"].split("//")[1] + info["certificate-authority"] + os.environ["EXTRA"] + "".join(sys.argv[1:])
print(json.dumps({{"apiVersion": {EXEC_API!r}, "kind": "ExecCredential", "status": {{"token": token}}}}))
"""
    user = make_plugin(tmp_path / "bin", code=code)
    user["exec"] |= {
        "command": "./bin/plugin",
        "provideClusterInfo": True,
        "args": ["-a", "b"],
        "env": [{"name": "EXTRA", "value": "extra"}],
    }
    ca, _key = make_certificate(tmp_path, "ca")
    path = write_kubeconfig(tmp_path, cluster={"certificate-authority": "ca.crt"}, user=user)
    access = resolve(tmp_path, {"kubeconfig": path})
    assert read_authorization(access) == f"Bearer 10.0.0.1:6443{ca}extra-ab"


def test_exec_plugin_with_a_certificate(tmp_path: Path) -> None:
    """It is shown instead of the user's, and another one makes another context."""
    pairs = [make_certificate(tmp_path, name) for name in ("one", "two")]
    code = f"""
place = pathlib.Path({str(tmp_path)!r})
name = "two" if (place / "again").exists() else "one"
(place / "again").touch()
read = lambda suffix: (place / (name + suffix)).read_text()
status = {{"clientCertificateData": read(".crt"), "clientKeyData": read(".key")}}
print(json.dumps({{"apiVersion": {EXEC_API!r}, "kind": "ExecCredential", "status": status}}))
"""
    access = resolve_user(
        tmp_path, {**make_plugin(tmp_path, code=code), "client-certificate": "/c", "client-key": "/k"}
    )
    first = access.tls()
    assert read_authorization(access) == ""
    assert Path(str(find_certificate(access)[0])).read_text(encoding="utf-8") == Path(pairs[0][0]).read_text(
        encoding="utf-8"
    )
    assert access.tls() is first
    access.credentials(True)
    assert Path(str(find_certificate(access)[0])).read_text(encoding="utf-8") == Path(pairs[1][0]).read_text(
        encoding="utf-8"
    )
    assert access.tls() is not first


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('please log in', file=sys.stderr); sys.exit(3)", "exec: process returned 3. please log in"),
        ("sys.exit(3)", "exec: process returned 3"),
        ("print('no json')", "failed to decode process output"),
        ("print('{}')", "malformed response"),
    ],
)
def test_the_plugins_own_words_are_in_the_error(tmp_path: Path, code: str, words: str) -> None:
    """The library tells them to the root logger only."""
    access = resolve_user(tmp_path, make_plugin(tmp_path, code=code))
    with pytest.raises(Refusal, match=f"user 'u' of kubeconfig .*its credential plugin gave no credentials: .*{words}"):
        access.credentials()


def test_a_plugin_that_issues_nothing(tmp_path: Path) -> None:
    """What the library says of it."""
    access = resolve_user(tmp_path, make_plugin(tmp_path, {}))
    with pytest.raises(Refusal, match="missing token or clientCertificateData"):
        access.credentials()


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    """Its own hint is passed on."""
    user = {"exec": {"apiVersion": EXEC_API, "command": "/nowhere/aws", "installHint": "Get it at example.org.\n"}}
    access = resolve_user(tmp_path, user)
    with pytest.raises(
        Refusal, match=r"'/nowhere/aws'. Run the plugin by hand, or give api_key. Get it at example.org"
    ):
        access.credentials()


def test_a_plugins_secrets_are_not_shown(tmp_path: Path) -> None:
    """Neither when it prints them itself."""
    user = make_plugin(tmp_path, code="print('denied: ' + os.environ['CLIENT_SECRET'], file=sys.stderr); sys.exit(1)")
    user["exec"]["env"] = [{"name": "CLIENT_SECRET", "value": CANARY}]
    access = resolve_user(tmp_path, user)
    with pytest.raises(Refusal, match=r"denied: \*\*\*") as caught:
        access.credentials()
    assert CANARY not in str(caught.value)


def test_a_plugin_that_never_ends_is_left(tmp_path: Path) -> None:
    """It may wait for somebody to log in."""
    access = resolve_user(tmp_path, make_plugin(tmp_path, code="time.sleep(20)"))
    begun = time.monotonic()
    with pytest.raises(Refusal, match="it has not ended within 0 s; it may be waiting for somebody to log in"):
        access.credentials(seconds=0.3)
    assert time.monotonic() - begun < 10


# --- certificates ---------------------------------------------------------------------------------------------------


def test_context_verifies(tmp_path: Path) -> None:
    """Unless somebody explicitly says otherwise; an intermediate authority is enough."""
    ca, _key = make_certificate(tmp_path, "ca")
    context = resolve(tmp_path, {"host": "https://h", "ca_cert": ca}).tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1
    context = resolve(tmp_path, {"host": "https://h", "ca_cert": ca, "validate_certs": False}).tls()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert resolve(tmp_path, {"host": "https://h"}).tls().verify_mode == ssl.CERT_REQUIRED


def test_authorities_with_comments(tmp_path: Path) -> None:
    """In a file and inline, in any language."""
    ca, _key = make_certificate(tmp_path, "ca")
    text = "# Zürich\n" + Path(ca).read_text(encoding="utf-8") + "# é\n"
    bundle = write_text(tmp_path / "bundle", text)
    assert len(resolve(tmp_path, {"host": "https://h", "ca_cert": bundle}).tls().get_ca_certs()) == 1
    access = ClusterAccess(server="https://h", source="x", trust=Trust(PemSource(text=text)))
    assert len(access.tls().get_ca_certs()) == 1


@pytest.mark.parametrize("text", ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_authorities_that_are_none(tmp_path: Path, text: str) -> None:
    """The option and where it came from."""
    path = write_text(tmp_path / "ca", text)
    with pytest.raises(Refusal, match="ca_cert from the option host: it cannot be loaded"):
        resolve(tmp_path, {"host": "https://h", "ca_cert": path}).tls()
    with pytest.raises(Refusal, match="file /nowhere: it cannot be read"):
        resolve(tmp_path, {"host": "https://h", "ca_cert": "/nowhere"}).tls()


def test_client_certificates(tmp_path: Path) -> None:
    """In files, in one file, inline; nothing is left on the disk."""
    certificate, key = make_certificate(tmp_path, "me")
    texts = [Path(path).read_text(encoding="utf-8") for path in (certificate, key)]
    both = write_text(tmp_path / "both", "".join(texts))
    before = set(tmp_path.parent.parent.glob("lowtide-*")) | set(Path("/tmp").glob("lowtide-*"))
    for pair in (
        (PemSource(certificate), PemSource(key)),
        (PemSource(both), PemSource()),
        (PemSource(text=texts[0]), PemSource(text=texts[1])),
        (PemSource(text=texts[0]), PemSource(key)),
    ):
        source = StaticSource(make_bearer("t")._replace(certificate=pair[0], key=pair[1]))
        ClusterAccess(server="https://h", source="x", identity=source).tls()
    assert set(Path("/tmp").glob("lowtide-*")) - before == set()


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    """OpenSSL would ask on the terminal, and wait."""
    certificate, key = make_certificate(tmp_path, "me", "-passout", f"pass:{CANARY}")
    for pair in (
        (PemSource(certificate), PemSource(key)),
        (PemSource(certificate), PemSource(text=PemSource(key).read())),
    ):
        source = StaticSource(make_bearer("t")._replace(certificate=pair[0], key=pair[1]))
        access = ClusterAccess(server="https://h", source="x", identity=source)
        with pytest.raises(Refusal, match=r"client_cert and client_key from x: .*the key is encrypted") as caught:
            access.tls()
        assert "Give a key without a password" in str(caught.value)


def test_a_key_that_does_not_belong_is_refused(tmp_path: Path) -> None:
    """By both names."""
    certificate, _key = make_certificate(tmp_path, "me")
    _certificate, key = make_certificate(tmp_path, "other")
    with pytest.raises(Refusal, match="client_cert and client_key from the option host: it cannot be loaded"):
        resolve(tmp_path, {"host": "https://h", "client_cert": certificate, "client_key": key}).tls()


# --- for the library ------------------------------------------------------------------------------------------------


def test_library_configuration(tmp_path: Path) -> None:
    """The same access, with files that are there as long as it is."""
    certificate, key = make_certificate(tmp_path, "me")
    texts = [PemSource(path).read() for path in (certificate, key)]
    identity = make_bearer("t0ken")._replace(certificate=PemSource(text=texts[0]), key=PemSource(key))
    access = ClusterAccess(
        server="https://h:6443/x",
        source="x",
        identity=StaticSource(identity),
        trust=Trust(PemSource(text=texts[0])),
        server_name="name",
    )
    access.use_proxy(resolve(tmp_path, {"host": "https://h", "proxy": "http://me:pw@p:1"}).proxy)
    configuration = access.build_library_configuration()
    assert (configuration.host, configuration.verify_ssl, configuration.tls_server_name) == (
        "https://h:6443/x",
        True,
        "name",
    )
    assert configuration.get_api_key_with_prefix("BearerToken") == "Bearer t0ken"
    assert PemSource(configuration.ssl_ca_cert).read() == texts[0]
    assert (PemSource(configuration.cert_file).read(), configuration.key_file) == (texts[0], key)
    assert Path(configuration.cert_file).stat().st_mode & 0o777 == 0o600
    assert (configuration.proxy, configuration.proxy_headers) == ("http://p:1", {"proxy-authorization": BASIC})
    folder = Path(configuration.cert_file).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    del configuration
    gc.collect()
    assert not folder.exists()


def test_library_configuration_follows_renewals(tmp_path: Path) -> None:
    """It asks for the header before each request."""
    write_text(tmp_path / "token", "first")
    access = resolve_user(tmp_path, {"tokenFile": "token"})
    configuration = access.build_library_configuration()
    write_text(tmp_path / "token", "second")
    access.credentials(True)
    assert configuration.get_api_key_with_prefix("BearerToken") == "Bearer second"


def test_library_configuration_with_impersonation_is_refused(tmp_path: Path) -> None:
    """The library would act as the real user."""
    with pytest.raises(Refusal, match="not possible as another user"):
        resolve_user(tmp_path, {"token": "t", "as": "jane"}).build_library_configuration()


def test_basic_credentials() -> None:
    """Letters outside ASCII are UTF-8."""
    assert make_basic("é", "p").headers == {"Authorization": "Basic w6k6cA=="}
