# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Credentials, endpoints, TLS, and answers that S3 does not give, as a module's options and this host's environment say."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._s3 import connection
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Bucket, Encryption, HashingReader
from ansible_collections.lowtide.ops.plugins.module_utils._s3.errors import S3Error, sdk_error

LISTING = (
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>'
    "<IsTruncated>{more}</IsTruncated>{entries}</ListBucketResult>"
)
OPTIONS: dict[str, Any] = {
    "endpoint_url": None,
    "region": None,
    "addressing_style": None,
    "access_key": None,
    "secret_key": None,
    "session_token": None,
    "credentials_file": None,
    "profile": None,
    "ca_bundle": None,
    "validate_certs": True,
}


KEYS = {"access_key": "a", "secret_key": "s"}


class Module:
    """What the code uses of AnsibleModule."""

    def __init__(self, **options: Any) -> None:
        self.params = OPTIONS | options
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)


def make(**options: Any) -> Any:
    """The client that these options mean."""
    return connection.make_client(Module(**options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the host that runs the tests."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def key_of(client: Any) -> str:
    """The access key that a client would sign with now."""
    return str(client._request_signer._credentials.get_frozen_credentials().access_key)


def test_credentials_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, then the named file or profile, then the environment, then the default file."""
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id=fd\naws_secret_access_key=s\n[other]\naws_access_key_id=fo\naws_secret_access_key=s\n"
    )
    mine = tmp_path / "mine"
    mine.write_text("[default]\naws_access_key_id=mine\naws_secret_access_key=s\n")
    assert key_of(make()) == "fd"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "env")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert key_of(make()) == "env"
    assert key_of(make(profile="other")) == "fo"
    assert key_of(make(credentials_file=str(mine))) == "mine"
    assert key_of(make(profile="other", **{**KEYS, "access_key": " opt\n"})) == "opt"


def test_credentials_that_expire_are_asked_for_again(tmp_path: Path) -> None:
    """Of a credential process: the key of now, not that of the beginning."""
    keys = tmp_path / "key"
    keys.write_text("first")
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        f'printf \'{{"Version": 1, "AccessKeyId": "%s", "SecretAccessKey": "s", "SessionToken": "t",'
        f' "Expiration": "%s"}}\' "$(cat {keys})" "$(date -u -d \'+60 seconds\' +%Y-%m-%dT%H:%M:%SZ)"\n'
    )
    program.chmod(0o700)
    (tmp_path / "config").write_text(f"[profile short]\ncredential_process = {program}\n")
    client = make(profile="short")
    assert key_of(client) == "first"
    keys.write_text("second")
    assert key_of(client) == "second"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("exit 1", "Error when retrieving credentials from custom-process"),
        ("""printf '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "Expiration": "2020-01-01T00:00:00Z"}'""",
         "the refreshed credentials are still expired"),
    ],
    ids=["none", "old ones"],
)  # fmt: skip
def test_credentials_that_cannot_be_renewed_are_named(tmp_path: Path, answer: str, words: str) -> None:
    """The source was there at the beginning; what it says later is told, for one request and for an upload."""
    program, broken = tmp_path / "program", tmp_path / "broken"
    program.write_text(
        f"#!/bin/sh\n[ ! -e {broken} ] || {{ {answer}; exit $?; }}\n"
        """printf '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "Expiration": "%s"}' """
        """"$(date -u -d '+60 seconds' +%Y-%m-%dT%H:%M:%SZ)"\n"""
    )
    program.chmod(0o700)
    (tmp_path / "config").write_text(f"[profile short]\ncredential_process = {program}\n")
    bucket = Bucket(make(profile="short", endpoint_url="http://127.0.0.1:1"), "b")
    broken.touch()
    source = HashingReader(io.BytesIO(b"x" * (6 << 20)), lambda: None)
    for call in (
        lambda: bucket.list_objects("p"),
        lambda: bucket.upload("k", source, part_bytes=5 << 20, content_type="a/b"),
    ):
        with pytest.raises(S3Error, match=words) as caught:
            call()
        assert (caught.value.obj, caught.value.code) == ("S3 credentials", "Credentials")
        assert "Renew them" in caught.value.next_step


@pytest.mark.parametrize("operation", ["AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken"])
def test_a_refusal_of_who_hands_out_credentials_is_not_the_buckets(operation: str) -> None:
    """Its AccessDenied says nothing of rights on the bucket."""
    answer = {
        "Error": {"Code": "AccessDenied", "Message": "not authorized"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    refusal = sdk_error(
        obj="s3://b/k",
        operation="read",
        endpoint="http://s3",
        error=ClientError(answer, operation),  # type: ignore[arg-type]
    )
    assert (refusal.obj, refusal.code) == ("S3 credentials", "Credentials")
    assert refusal.problem == f"{operation} was refused: not authorized (AccessDenied, HTTP 403)"
    own = sdk_error(obj="s3://b/k", operation="read", endpoint="http://s3", error=ClientError(answer, "GetObject"))  # type: ignore[arg-type]
    assert (own.obj, own.code) == ("s3://b/k", "AccessDenied")


@pytest.mark.parametrize(
    ("obj", "operation", "resource"),
    [
        ("s3://b/p/d/7/run/dump", "PutObject", "s3:PutObject on arn:aws:s3:::b/p/d/7/*, or on the prefix before it,"),
        ("s3://b/d/7/run/dump", "GetObject", "s3:GetObject on arn:aws:s3:::b/d/7/*,"),
        ("s3://b/k", "GetObject", "s3:GetObject on the bucket (arn:aws:s3:::b/*),"),
        ("s3://b/p/d/7/", "ListObjectsV2", "s3:ListBucket on the bucket (arn:aws:s3:::b),"),
        ("s3://b", "ListObjectsV2", "s3:ListBucket on the bucket (arn:aws:s3:::b),"),
        ("S3", "ListObjectsV2", "s3:ListBucket on the bucket,"),
    ],
)
def test_a_right_is_advised_on_no_more_than_is_needed(obj: str, operation: str, resource: str) -> None:
    """As a policy names it: the objects of this database, not the whole bucket."""
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = ClientError(answer, operation)  # type: ignore[arg-type]
    refused = sdk_error(obj=obj, operation="read", endpoint="http://s3", error=error)
    assert f"Grant these credentials {resource}" in refused.next_step


def test_an_absent_profile_or_file_is_refused_without_the_files_text(tmp_path: Path) -> None:
    """A line that cannot be parsed may be the secret; a secret of two lines is not shown either."""
    broken = tmp_path / "broken"
    broken.write_text("canary-secret\n")
    for options in (
        {"profile": "nobody"},
        {"credentials_file": "/nowhere/keys"},
        {"credentials_file": str(broken)},
        {"access_key": "a", "secret_key": "canary\nsecret"},
        {"access_key": "a", "secret_key": "s", "session_token": "canary\x7f"},
        {},
    ):
        with pytest.raises(Refusal) as caught:
            make(**options)
        assert "canary" not in str(caught.value)
        assert caught.value.next_step


@pytest.mark.parametrize(
    ("options", "environ", "config", "url"),
    [
        ({"region": "cn-north-1"}, {}, "", "https://s3.cn-north-1.amazonaws.com.cn"),
        ({"region": "us-gov-west-1"}, {}, "", "https://s3.us-gov-west-1.amazonaws.com"),
        ({}, {}, "[default]\nregion = eu-west-1\n", "https://s3.eu-west-1.amazonaws.com"),
        ({}, {"AWS_ENDPOINT_URL_S3": "http://s3.test:9"}, "", "http://s3.test:9"),
        ({"endpoint_url": "http://own.test"}, {"AWS_ENDPOINT_URL_S3": "http://s3.test:9"}, "", "http://own.test"),
    ],
)
def test_endpoints_are_those_of_every_other_tool(
    options: dict[str, Any],
    environ: dict[str, str],
    config: str,
    url: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Partitions of AWS, the profile's region, the environment, the option."""
    (tmp_path / "config").write_text(config)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert make(**KEYS, **options).meta.endpoint_url == url


@pytest.mark.parametrize(
    ("options", "environ", "config", "style"),
    [
        ({}, {}, "", None),
        ({"endpoint_url": "http://s3.test"}, {}, "", "path"),
        ({}, {"AWS_ENDPOINT_URL_S3": "http://s3.test"}, "", "path"),
        ({"endpoint_url": "http://s3.test"}, {}, "[default]\ns3 =\n  addressing_style = virtual\n", "virtual"),
        ({"endpoint_url": "http://s3.test"}, {}, "[default]\ns3 =\n  max_concurrent_requests = 3\n", "path"),
        ({"endpoint_url": "http://s3.test", "addressing_style": "virtual"}, {}, "", "virtual"),
        (
            {"endpoint_url": "http://s3.test", "addressing_style": "path"},
            {},
            "[default]\ns3 =\n  addressing_style = virtual\n",
            "path",
        ),
    ],
)
def test_where_the_bucket_stands(
    options: dict[str, Any],
    environ: dict[str, str],
    config: str,
    style: str | None,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The option, then the profile; a server that is named by an address has it in the path."""
    (tmp_path / "config").write_text(config)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ((make(**KEYS, **options).meta.config.s3) or {}).get("addressing_style") == style


@pytest.mark.parametrize("bad", ["ftp://x", "s3.test", "https://s3.test/bucket", "https://"])
def test_no_endpoint(bad: str) -> None:
    """Refused with the value."""
    with pytest.raises(Refusal, match="endpoint_url"):
        make(endpoint_url=bad)


def test_versions_of_the_library() -> None:
    """Debian 12's is enough; older ones, and a variable that it does not read, are refused."""
    debian = connection.parse_version("1.29.27")
    connection.check_version(debian, {})
    assert "request_checksum_calculation" not in connection.choose_options(OPTIONS, debian, {})
    new = connection.choose_options(OPTIONS, connection.parse_version("1.44.5"), {})
    assert new["request_checksum_calculation"] == "when_required"
    assert connection.parse_version("1.30.0rc1") == (1, 30)
    with pytest.raises(Refusal, match=r"its version is 1\.28\.9, and 1\.29 is the oldest"):
        connection.check_version((1, 28, 9), {})
    with pytest.raises(Refusal, match="AWS_ENDPOINT_URL_S3"):
        connection.check_version(debian, {"AWS_ENDPOINT_URL_S3": "http://x"})


def test_a_request_with_a_body_carries_its_md5() -> None:
    """Bytes and files, which are read again from where they stood."""
    expected = base64.b64encode(hashlib.md5(b"body", usedforsecurity=False).digest()).decode()
    file = io.BytesIO(b"--body")
    file.seek(2)
    for body in (b"body", file):
        params: dict[str, Any] = {"body": body, "headers": {}}
        connection.add_content_md5(params, model=None)
        assert params["headers"] == {"Content-MD5": expected}
    assert file.tell() == 2


def test_the_producer_is_asked_at_the_end() -> None:
    """Once, also where the last piece is a whole one; its failure is the reader's."""
    asked: list[int] = []
    source = HashingReader(io.BytesIO(b"abcd"), lambda: asked.append(1))
    assert [source.read(2), source.read(2), asked, source.read(2), source.read(2)] == [b"ab", b"cd", [1], b"", b""]
    assert (source.size, source.sha256, asked) == (4, hashlib.sha256(b"abcd").hexdigest(), [1])

    def fail() -> None:
        raise OpsError(obj="pg_dump", problem="died", next_step="x")

    with pytest.raises(OpsError, match="died"):
        HashingReader(io.BytesIO(b""), fail).read(2)


@pytest.mark.parametrize(
    ("asked", "method", "key", "matches"),
    [
        (Encryption("AES256"), "AES256", "", True),
        (Encryption("AES256"), None, "", False),
        (Encryption("aws:kms", "alias/backup"), "aws:kms", "arn:aws:kms:r:1:key/k1", True),
        (Encryption("aws:kms", "arn:aws:kms:r:1:alias/backup"), "aws:kms", "arn:aws:kms:r:1:key/k1", True),
        (Encryption("aws:kms", "k1"), "aws:kms", "arn:aws:kms:r:1:key/k1", True),
        (Encryption("aws:kms", "arn:aws:kms:r:1:key/k1"), "aws:kms", "arn:aws:kms:r:1:key/k2", False),
        (Encryption("aws:kms", "alias/backup"), "AES256", "", False),
    ],
)
def test_encryption_is_compared_where_it_can_be(asked: Encryption, method: str | None, key: str, matches: bool) -> None:
    """An alias is answered by the key that it stands for."""
    assert asked.matches(method, key) is matches


class Handler(BaseHTTPRequestHandler):
    """A fake server: ``answer`` says what."""

    protocol_version = "HTTP/1.1"
    answer: ClassVar[Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]]

    def do_GET(self) -> None:  # the name is http.server's
        """Answer as the test says."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, headers, body = type(self).answer(self)
        self.send_response(status)
        for name, value in {"Connection": "close", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # names are http.server's

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start fake servers."""
    servers = []

    def start(answer: Answer, context: ssl.SSLContext | None = None) -> str:
        handler = type("Own", (Handler,), {"answer": staticmethod(answer)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"{'http' if context is None else 'https'}://localhost:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def bucket_at(url: str, **options: Any) -> Bucket:
    """A bucket there."""
    return Bucket(make(endpoint_url=url, **KEYS, **options), "b")


def test_listed_keys_are_byte_exact(serve: Callable[..., str]) -> None:
    """Also those that XML cannot carry."""
    entries = (
        "<Contents><Key>a%20b%2F%C3%BC%01</Key><Size>3</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-11-21T02:00:00.000Z</LastModified></Contents>"
    )
    body = LISTING.format(more="false", entries=entries).encode()
    bucket = bucket_at(serve(lambda _request: (200, {}, body)))
    (listed,) = bucket.list_objects("")
    assert (listed.key, listed.size, listed.etag) == ("a b/ü\x01", 3, "e")
    assert bucket.server_time is not None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html><body>hello</body></html>", "the answer to a listing is none"),
        (LISTING.format(more="true", entries="").encode(), "does not say how it goes on"),
    ],
)
def test_an_answer_that_is_no_whole_listing_is_an_error(serve: Callable[..., str], body: bytes, words: str) -> None:
    """A proxy's page, and a listing that would be taken for complete."""
    with pytest.raises(S3Error, match=words) as caught:
        bucket_at(serve(lambda _request: (200, {}, body))).list_objects("")
    assert "endpoint_url" in caught.value.next_step


def test_a_read_that_breaks_off_goes_on_also_where_ranges_are_ignored(serve: Callable[..., str]) -> None:
    """The rest comes as a range from one server, and from another the object comes from its start again."""
    content = bytes(range(256)) * 20
    for knows_ranges in (True, False):
        asked: list[str | None] = []

        def answer(
            request: BaseHTTPRequestHandler, *, ranges: bool = knows_ranges, log: list[str | None] = asked
        ) -> tuple[int, dict[str, str], bytes]:
            log.append(request.headers["Range"])
            if len(log) == 1:
                return 200, {"ETag": '"e"', "Content-Length": str(len(content))}, content[:1000]
            assert request.headers["If-Match"] == '"e"'
            start = int(str(log[-1]).removeprefix("bytes=").removesuffix("-"))
            if not ranges:
                return 200, {"ETag": '"e"'}, content
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return 206, {"ETag": '"e"', "Content-Range": span}, content[start:]

        assert b"".join(bucket_at(serve(answer)).stream("k")) == content
        assert asked[0] is None
        assert len(asked) == 2


def test_a_server_that_always_breaks_off_ends_the_read(serve: Callable[..., str]) -> None:
    """After a bounded number of attempts that brought nothing."""
    asked: list[int] = []

    def answer(_request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        asked.append(1)
        return 200, {"ETag": '"e"', "Content-Length": "100"}, b""

    with pytest.raises(S3Error, match="no answer"):
        bucket_at(serve(answer)).read("k")
    assert len(asked) == 5


def answer_upload(head: tuple[int, dict[str, str], bytes], *, code: str) -> Answer:
    """A server that takes an upload's parts and refuses its completion by ``code``; ``head`` is what it holds then."""

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.command == "HEAD":
            return head
        if request.command == "POST" and "uploads" in request.path:
            return 200, {}, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        if request.command == "POST":
            return 404, {}, f"<Error><Code>{code}</Code><Message>gone</Message></Error>".encode()
        return (200, {"ETag": '"p"'}, b"") if request.command == "PUT" else (204, {}, b"")

    return answer


@pytest.mark.parametrize(
    ("head", "code", "words"),
    [
        # The answer to the completion was lost, boto3 has repeated it, and the object is there.
        ((200, {"Content-Length": str(6 << 20), "ETag": '"whole"'}, b""), "NoSuchUpload", None),
        ((200, {"Content-Length": "1", "ETag": '"other"'}, b""), "NoSuchUpload", "the server holds 1 bytes of"),
        # Somebody has aborted it.
        ((404, {}, b""), "NoSuchUpload", r"upload: .*NoSuchUpload"),
        ((200, {"Content-Length": str(6 << 20), "ETag": '"old"'}, b""), "InvalidPart", "InvalidPart"),
    ],
    ids=["complete", "another object", "aborted", "another refusal"],
)
def test_an_upload_that_is_gone_at_its_completion_may_be_complete(
    serve: Callable[..., str], head: tuple[int, dict[str, str], bytes], code: str, words: str | None
) -> None:
    """What the server holds tells, by its size; the verification reads all of it anyway."""
    bucket = bucket_at(serve(answer_upload(head, code=code)))
    source = HashingReader(io.BytesIO(b"x" * (6 << 20)), lambda: None)
    if words is None:
        assert bucket.upload("k", source, part_bytes=5 << 20, content_type="a/b") == "whole"
        return
    with pytest.raises(OpsError, match=words):
        bucket.upload("k", source, part_bytes=5 << 20, content_type="a/b")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A self-signed certificate for ``localhost``."""
    folder = tmp_path_factory.mktemp("tls")
    key, path = folder / "key.pem", folder / "cert.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    argv += ["subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(path)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return context, path


def test_tls_that_breaks_in_the_middle_of_a_read_is_a_break_like_any_other(
    serve: Callable[..., str], certificate: tuple[ssl.SSLContext, Path]
) -> None:
    """botocore lets that error of urllib3 pass as it is."""
    context, path = certificate
    content = bytes(range(256)) * 20
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.headers["Range"])
        if len(asked) == 1:
            head = f'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: {len(content)}\r\n\r\n'
            request.wfile.write(head.encode() + content[:1000])
            os.write(request.connection.fileno(), b"no record of TLS " * 10)
        return 200, {"ETag": '"e"'}, content

    bucket = bucket_at(serve(answer, context), ca_bundle=str(path))
    assert b"".join(bucket.stream("k")) == content
    assert len(asked) == 2


def test_tls_is_verified(serve: Callable[..., str], certificate: tuple[ssl.SSLContext, Path]) -> None:
    """Self-signed and wrong name are refused; the authority or an explicit no makes it work."""
    context, path = certificate
    body = LISTING.format(more="false", entries="").encode()
    url = serve(lambda _request: (200, {}, body), context)
    wrong = url.replace("localhost", "127.0.0.1")
    for address, ca_bundle in ((url, None), (wrong, str(path))):
        with pytest.raises(S3Error, match="TLS certificate is not trusted") as caught:
            bucket_at(address, ca_bundle=ca_bundle).list_objects("")
        assert "ca_bundle" in caught.value.next_step
    assert bucket_at(url, ca_bundle=str(path)).list_objects("") == []
    module = Module(endpoint_url=wrong, **KEYS, validate_certs=False)
    assert Bucket(connection.make_client(module), "b").list_objects("") == []  # type: ignore[arg-type]
    assert "not verified" in module.warnings[0]


def test_no_answer_names_endpoint_and_cause() -> None:
    """A port where nobody listens; a name that is none."""
    with pytest.raises(S3Error, match=r"http://127\.0\.0\.1:9: no answer: .*Connection refused"):
        bucket_at("http://127.0.0.1:9").list_objects("")
