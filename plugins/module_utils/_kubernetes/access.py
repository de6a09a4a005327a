# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the API server is and who we are there: options, environment, kubeconfig, the service account of a pod.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
import threading
import typing as t
import weakref
from urllib.parse import quote

from .._common.dependencies import require
from .._common.errors import Refusal
from .certificates import Trust, make_context
from .credentials import (
    PLUGIN_SECONDS,
    Credentials,
    PluginSource,
    StaticSource,
    TokenFileSource,
    make_basic,
    make_bearer,
)
from .files import PemSource, check_header, check_token
from .kubeconfig import Entry, Kubeconfig
from .proxies import ProxyUrl, find_proxy, is_exempt, is_loopback, parse_proxy, split_url

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# The names of kubernetes.core, whose variables AWX and execution environments set; of two the first counts.
VARIABLES: dict[str, tuple[str, ...]] = {
    "kubeconfig": ("K8S_AUTH_KUBECONFIG",),
    "context": ("K8S_AUTH_CONTEXT",),
    "host": ("K8S_AUTH_HOST",),
    "api_key": ("K8S_AUTH_API_KEY",),
    "username": ("K8S_AUTH_USERNAME",),
    "password": ("K8S_AUTH_PASSWORD",),
    "client_cert": ("K8S_AUTH_CERT_FILE", "K8S_AUTH_CLIENT_CERT"),
    "client_key": ("K8S_AUTH_KEY_FILE", "K8S_AUTH_CLIENT_KEY"),
    "ca_cert": ("K8S_AUTH_SSL_CA_CERT", "K8S_AUTH_CA_CERT"),
    "validate_certs": ("K8S_AUTH_VERIFY_SSL", "K8S_AUTH_VALIDATE_CERTS"),
    "tls_server_name": ("K8S_AUTH_TLS_SERVER_NAME",),
    "proxy": ("K8S_AUTH_PROXY",),
    "no_proxy": ("K8S_AUTH_NO_PROXY",),
    "impersonate_user": ("K8S_AUTH_IMPERSONATE_USER",),
    "impersonate_groups": ("K8S_AUTH_IMPERSONATE_GROUPS",),
}
_CLUSTER_CHOICE = frozenset({"kubeconfig", "context", "host"})
_PROXY_OPTIONS = frozenset({"proxy", "no_proxy"})
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_HEADER_NAME = "!#$&'*+-.^_`|~"  # what a header's name may hold beside letters and digits

Source = StaticSource | TokenFileSource | PluginSource


class ClusterAccess:
    """Everything needed to open a connection and to say who we are. Safe for several threads.

    ``source`` says where it came from, for messages; ``impersonation`` are headers to send with every request, some more
    than once; ``warnings`` is what the user should know, and may grow while it is used.
    """

    def __init__(
        self,
        *,
        server: str,
        source: str,
        identity: Source | None = None,
        token: str | None = None,
        trust: Trust | None = None,
        server_name: str | None = None,
        proxy: ProxyUrl | None = None,
        impersonation: t.Sequence[tuple[str, str]] = (),
    ) -> None:
        parts = split_url(server, obj=f"API server from {source}", example="https://10.0.0.1:6443")
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
            is_address = parts.scheme in ("http", "https")
            raise Refusal(
                obj=f"API server from {source}",
                problem="its URL holds a user name, a query or a fragment"
                if is_address
                else f"its address has the scheme {parts.scheme!r}, so it is not an http(s) URL",
                next_step="Give a URL such as https://10.0.0.1:6443; credentials have options of their own",
            )
        self.server = server.rstrip("/")
        self.source = source
        self.secure = parts.scheme == "https"
        self.address = (parts.hostname or "", parts.port or (443 if self.secure else 80))
        self.base_path = parts.path.rstrip("/")
        self.server_name = server_name
        self.trust = trust or Trust()
        self.impersonation = tuple(impersonation)
        self.warnings: list[str] = []
        if identity is None:
            identity = StaticSource(make_bearer(token) if token else Credentials())
        self._identity = identity
        self._current: Credentials | None = None
        self._context: ssl.SSLContext | None = None
        self._secrets: set[str] = set()
        self._lock = threading.RLock()
        self.use_proxy(proxy)
        if not identity.can_renew:
            self._obtain()  # costs nothing, and its secrets are known from the start

    @property
    def verify(self) -> bool:
        """Whether the server's certificate is verified."""
        return self.trust.verify

    @property
    def can_renew(self) -> bool:
        """Whether asking again may give other credentials: a file or a plugin, not a fixed token."""
        return self._identity.can_renew

    def use_proxy(self, proxy: ProxyUrl | None) -> None:
        """Go through a proxy, or with None directly."""
        self.proxy = proxy
        if proxy is not None and proxy.password:
            self._secrets.add(proxy.password)

    def credentials(self, renew: bool = False, *, seconds: float = PLUGIN_SECONDS) -> t.Mapping[str, str]:
        """Return the headers that say who we are; with ``renew`` the file is read, or the plugin asked, again.

        A plugin may take ``seconds``. Raises Refusal when there are no credentials to be had.
        """
        return self._obtain(renew=renew, seconds=seconds).headers

    def tls(self) -> ssl.SSLContext:
        """Return the client context, with our certificate if there is one. Raises Refusal for what cannot be loaded."""
        with self._lock:
            current = self._obtain()
            if self._context is None:
                self._context = make_context(self.trust, current.certificate, current.key, source=self.source)
            return self._context

    def secrets(self) -> list[str]:
        """Return every secret value used so far, for ``no_log_values``: ask at the end, since renewals add to them."""
        with self._lock:
            return sorted(self._secrets)

    def build_library_configuration(self) -> t.Any:
        """Return a ``kubernetes.client.Configuration`` of the same access, for what the library does: exec, port-forward.

        Its files last as long as it does. Raises Refusal with impersonation, which the library would leave out without a word.
        """
        if self.impersonation:
            raise Refusal(
                obj=self.source,
                problem="commands and forwarded ports in pods are not possible as another user (impersonation)",
                next_step="Use an account that may do it itself",
            )
        library = require("kubernetes", package="kubernetes", why="for commands and forwarded ports in pods")
        configuration = library.client.Configuration()
        configuration.host = self.server
        configuration.verify_ssl = self.verify
        configuration.tls_server_name = self.server_name
        current = self._obtain()
        folder = tempfile.mkdtemp(prefix="lowtide-")  # mode 0700
        weakref.finalize(configuration, shutil.rmtree, folder, ignore_errors=True)
        configuration.ssl_ca_cert = _place_pem(self.trust.ca, folder, "ca.crt")
        configuration.cert_file = _place_pem(current.certificate, folder, "client.crt")
        configuration.key_file = _place_pem(current.key, folder, "client.key")
        if self.proxy is not None:
            configuration.proxy = self.proxy.title
            if self.proxy.username:
                library_headers = make_basic(self.proxy.username, self.proxy.password).headers
                configuration.proxy_headers = {"proxy-authorization": library_headers["Authorization"]}

        def refresh(target: t.Any) -> None:
            header = self.credentials().get("Authorization")
            if header:
                target.api_key.update({"authorization": header, "BearerToken": header})

        refresh(configuration)
        configuration.refresh_api_key_hook = refresh
        return configuration

    def _obtain(self, *, renew: bool = False, seconds: float = PLUGIN_SECONDS) -> Credentials:
        with self._lock:
            if self._current is None or renew:
                credentials = self._identity.obtain(seconds)
                self._secrets.update(secret for secret in credentials.secrets if secret)
                if self._current is not None and credentials[1:3] != self._current[1:3]:
                    self._context = None
                self._current = credentials
            return self._current


class _Choice:
    """Options, and the environment where an option is not given; each value knows where it came from."""

    def __init__(self, options: t.Mapping[str, t.Any], environ: t.Mapping[str, str]) -> None:
        self._values: dict[str, t.Any] = {}
        self._origins: dict[str, str] = {}
        given = {name for name in VARIABLES if options.get(name) is not None}
        for name in given:
            self._values[name] = options[name]
            self._origins[name] = f"the option {name}"
            if options[name] == "" and name not in _PROXY_OPTIONS:
                raise Refusal(
                    obj=f"option {name}", problem="it is empty", next_step="Give a value, or leave the option out"
                )
        for name in _list_variables(given):
            variable = next((variable for variable in VARIABLES[name] if environ.get(variable)), None)
            if variable is not None:
                self._origins[name] = f"the environment variable {variable}"
                self._values[name] = self._convert(name, environ[variable])

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> t.Any:
        """Return a value, None when it is not given."""
        return self._values.get(name)

    def find_origin(self, name: str) -> str:
        """Return where a value came from, for messages."""
        return self._origins[name]

    def get_pem(self, name: str) -> PemSource:
        """Return the certificate or key that an option names."""
        path = self.get(name)
        return PemSource(path=os.path.expanduser(str(path)) if path else None)

    def _convert(self, name: str, text: str) -> t.Any:
        if name == "impersonate_groups":
            return [group.strip() for group in text.split(",") if group.strip()]
        if name != "validate_certs":
            return text
        if text.strip().lower() not in _FLAGS:
            raise Refusal(
                obj=self._origins[name], problem=f"it is {text!r}, not a boolean", next_step="Set it to true or false"
            )
        return _FLAGS[text.strip().lower()]


def _list_variables(given: set[str]) -> list[str]:
    """Return the options that the environment may still give.

    A task that chooses its cluster does not get another one's address, and a kubeconfig or context that it names does not
    get the identity that was meant for another place.
    """
    names = [name for name in VARIABLES if name not in given]
    if given & {"kubeconfig", "context"}:
        keep = _PROXY_OPTIONS | ({"kubeconfig"} if "kubeconfig" not in given else {"context"})
        names = [name for name in names if name in keep]
    elif "host" in given:
        names = [name for name in names if name not in _CLUSTER_CHOICE]
    return names


def resolve_access(
    options: t.Mapping[str, t.Any],
    *,
    environ: t.Mapping[str, str] | None = None,
    in_pod_root: str = SERVICE_ACCOUNT,
) -> ClusterAccess:
    """Return the access that options and environment name. Nothing is sent, and no plugin is asked yet.

    ``host`` wins; then ``kubeconfig``, KUBECONFIG, ~/.kube/config; in a pod without any of them its service account, whose
    folder is ``in_pod_root``. Raises Refusal for what is missing, contradictory or not understood.
    """
    environ = os.environ if environ is None else environ
    choice = _Choice(options, environ)
    warnings: list[str] = []
    if "host" in choice:
        access = _resolve_host(choice, environ)
    else:
        kubeconfig = _find_kubeconfig(choice, environ)
        if kubeconfig is not None:
            access = _resolve_context(kubeconfig, choice, environ, warnings)
        elif "context" in choice:
            raise Refusal(
                obj=f"context {choice.get('context')!r} from {choice.find_origin('context')}",
                problem="there is no kubeconfig that could have it: no option kubeconfig, no KUBECONFIG, no ~/.kube/config",
                next_step="Set kubeconfig to the file that has this context",
            )
        elif os.path.exists(os.path.join(in_pod_root, "token")):
            access = _resolve_pod(choice, environ, in_pod_root)
        else:
            raise Refusal(
                obj="Kubernetes connection",
                problem="neither host nor kubeconfig is given, KUBECONFIG is not set, and there is no ~/.kube/config",
                next_step="Set kubeconfig (and context), or host with api_key",
            )
    access.warnings = warnings
    if not access.verify and access.secure:
        warnings.append(f"The certificate of API server {access.server} is not verified (validate_certs is false)")
    return access


def _resolve_host(choice: _Choice, environ: t.Mapping[str, str]) -> ClusterAccess:
    source = choice.find_origin("host")
    if "context" in choice:
        raise Refusal(
            obj=f"context {choice.get('context')!r} from {choice.find_origin('context')}",
            problem=f"{source} is given as well, and with it no kubeconfig is read",
            next_step="Give either host or context",
        )
    nobody = Entry({}, title=source, folder=None)
    return _make_access(str(choice.get("host")), source, choice, environ, cluster=nobody, user=nobody)


def _resolve_pod(choice: _Choice, environ: t.Mapping[str, str], root: str) -> ClusterAccess:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        raise Refusal(
            obj=f"service account of this pod ({root})",
            problem="KUBERNETES_SERVICE_HOST is not set, so the address of its API server is not known",
            next_step="Set host, or kubeconfig and context",
        )
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    entry = Entry(
        {"certificate-authority": "ca.crt", "tokenFile": "token"}, title="the service account of this pod", folder=root
    )
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return _make_access(server, "the pod's service account", choice, environ, cluster=entry, user=entry)


def _find_kubeconfig(choice: _Choice, environ: t.Mapping[str, str]) -> Kubeconfig | None:
    """Return the kubeconfig that is named, the one at the usual place if it holds anything, or None."""
    if "kubeconfig" in choice:
        origin, value = choice.find_origin("kubeconfig"), choice.get("kubeconfig")
        if isinstance(value, dict):
            return Kubeconfig(value)
        paths = [_expand(str(path)) for path in value] if isinstance(value, list | tuple) else _split_paths(str(value))
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing or not paths:
            raise Refusal(
                obj=f"kubeconfig {', '.join(missing) or 'list'} from {origin}",
                problem="there is no such file" if missing else "it is empty",
                next_step="Correct the path",
            )
        return Kubeconfig(paths)
    if environ.get("KUBECONFIG"):
        listed = [path for path in environ["KUBECONFIG"].split(os.pathsep) if path]
        paths = [path for path in listed if os.path.isfile(path)]
        if not paths:
            raise Refusal(
                obj=f"kubeconfig {environ['KUBECONFIG']} from the environment variable KUBECONFIG",
                problem="there is no such file",
                next_step="Correct KUBECONFIG, or unset it",
            )
        return Kubeconfig(paths)
    usual = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".kube", "config")
    if not os.path.isfile(usual):
        return None
    kubeconfig = Kubeconfig([usual])
    return None if kubeconfig.is_empty else kubeconfig


def _expand(path: str) -> str:
    return os.path.expanduser(os.path.expandvars(path))


def _split_paths(text: str) -> list[str]:
    """Return the files of a path, or of several in one text as KUBECONFIG has them."""
    if os.path.isfile(_expand(text)):
        return [_expand(text)]
    return [_expand(path) for path in text.split(os.pathsep) if path]


def _resolve_context(
    kubeconfig: Kubeconfig, choice: _Choice, environ: t.Mapping[str, str], warnings: list[str]
) -> ClusterAccess:
    selection = kubeconfig.select(str(choice.get("context") or ""))
    source = f"context {selection.name!r} of kubeconfig {kubeconfig.label}"
    server = selection.cluster.get_text("server")
    if not server:
        raise Refusal(
            obj=selection.cluster.title, problem="it names no server", next_step="Correct or replace the kubeconfig"
        )
    return _make_access(
        server, source, choice, environ, cluster=selection.cluster, user=selection.user, warnings=warnings
    )


def _make_access(
    server: str,
    source: str,
    choice: _Choice,
    environ: t.Mapping[str, str],
    *,
    cluster: Entry,
    user: Entry,
    warnings: list[str] | None = None,
) -> ClusterAccess:
    """Put together what options say and, where they say nothing, what a kubeconfig says."""
    validate = choice.get("validate_certs")
    trust = Trust(
        choice.get_pem("ca_cert") or cluster.get_pem("certificate-authority"),
        not cluster.get_flag("insecure-skip-tls-verify") if validate is None else bool(validate),
    )
    access = ClusterAccess(
        server=server,
        source=source,
        identity=_choose_identity(choice, cluster, user, [] if warnings is None else warnings),
        trust=trust,
        server_name=choice.get("tls_server_name") or cluster.get_text("tls-server-name") or None,
        impersonation=_choose_impersonation(choice, user),
    )
    access.use_proxy(_choose_proxy(access, choice, environ, cluster))
    _check_transport(access, has_identity=_has_identity(choice, user))
    return access


def _choose_identity(choice: _Choice, cluster: Entry, user: Entry, warnings: list[str]) -> Source:
    """Return who we are: what options say takes the place of everything that the kubeconfig says, plugins too.

    Without options: a token file, a token, a user name with its password, an exec or auth-provider plugin; with any of
    them the user's certificate.
    """
    certificate, key = choice.get_pem("client_cert"), choice.get_pem("client_key")
    if key and not certificate:
        certificate = user.get_pem("client-certificate")
        if not certificate:
            raise Refusal(
                obj=f"client_key from {choice.find_origin('client_key')}",
                problem="there is no client certificate that it belongs to",
                next_step="Set client_cert as well",
            )
    if "api_key" in choice and "username" in choice:
        raise Refusal(
            obj=f"api_key from {choice.find_origin('api_key')}",
            problem=f"username is given too, by {choice.find_origin('username')}, and only one of them can be sent",
            next_step="Give either api_key or username and password",
        )
    if ("username" in choice) != ("password" in choice):
        given = "username" if "username" in choice else "password"
        raise Refusal(
            obj=choice.find_origin(given),
            problem="username and password are not both given",
            next_step="Give both, or neither",
        )
    if "api_key" in choice:
        token = check_token(str(choice.get("api_key")), source=choice.find_origin("api_key"))
        return StaticSource(make_bearer(token)._replace(certificate=certificate, key=key))
    if "username" in choice:
        basic = make_basic(str(choice.get("username")), str(choice.get("password")))
        return StaticSource(basic._replace(certificate=certificate, key=key))
    if certificate:
        return StaticSource(Credentials(certificate=certificate, key=key))
    return _choose_own_identity(cluster, user, warnings)


def _choose_own_identity(cluster: Entry, user: Entry, warnings: list[str]) -> Source:
    certificate, key = user.get_pem("client-certificate"), user.get_pem("client-key")
    token_file, token, username = user.get_path("tokenFile"), user.get_text("token"), user.get_text("username")
    if username and (token or token_file):
        raise Refusal(
            obj=user.title,
            problem="it has both a token and a user name, and only one of them can be sent",
            next_step="Remove one of them from the kubeconfig",
        )
    if token_file:
        return TokenFileSource(token_file, certificate=certificate, key=key)
    if token:
        bearer = make_bearer(check_token(token, source=user.title))
        return StaticSource(bearer._replace(certificate=certificate, key=key))
    if username:
        basic = make_basic(username, user.get_text("password"))
        return StaticSource(basic._replace(certificate=certificate, key=key))
    plugins = [name for name in ("exec", "auth-provider") if user.get_mapping(name)]
    if len(plugins) > 1:
        raise Refusal(
            obj=user.title,
            problem="it has both exec and auth-provider",
            next_step="Remove one of them from the kubeconfig",
        )
    if plugins:
        return PluginSource(cluster, user, certificate=certificate, key=key, warnings=warnings)
    return StaticSource(Credentials(certificate=certificate, key=key))


def _has_identity(choice: _Choice, user: Entry) -> bool:
    options = ("api_key", "username", "client_cert")
    keys = ("token", "tokenFile", "username", "exec", "auth-provider", "client-certificate", "client-certificate-data")
    return any(name in choice for name in options) or any(user.values.get(key) for key in keys)


def _choose_impersonation(choice: _Choice, user: Entry) -> list[tuple[str, str]]:
    """Return the headers by which we act as somebody else. A user from an option brings none of the kubeconfig's attributes."""
    name, groups = choice.get("impersonate_user"), choice.get("impersonate_groups")
    uid, extra = "", {}
    title = user.title
    if name is not None:
        title = choice.find_origin("impersonate_user")
        groups = groups or []
    else:
        name, uid, extra = user.get_text("as"), user.get_text("as-uid"), user.get_mapping("as-user-extra")
        groups = user.get_texts("as-groups") if groups is None else groups
    if not name and (groups or uid or extra):
        raise Refusal(
            obj=title,
            problem="it says as which groups or with which attributes to act, but not as which user",
            next_step="Set impersonate_user, or as in the kubeconfig",
        )
    if not name:
        return []
    headers = [("Impersonate-User", check_header(str(name), obj=f"the user to act as, from {title}"))]
    if uid:
        headers.append(("Impersonate-Uid", check_header(uid, obj=f"as-uid of {title}")))
    headers += [
        ("Impersonate-Group", check_header(str(group), obj=f"a group to act as, from {title}")) for group in groups
    ]
    for key in extra:
        values = Entry(extra, title=f"as-user-extra of {title}", folder=None).get_texts(key)
        header = f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME)}"
        headers += [(header, check_header(value, obj=f"as-user-extra {key} of {title}")) for value in values]
    return headers


def _choose_proxy(
    access: ClusterAccess, choice: _Choice, environ: t.Mapping[str, str], cluster: Entry
) -> ProxyUrl | None:
    """Return the proxy of the option, of the cluster's proxy-url, or of the environment; ``no_proxy`` exempts from all."""
    host, port = access.address
    exceptions = choice.get("no_proxy")
    if exceptions is not None:
        exceptions = ",".join(exceptions) if isinstance(exceptions, list) else str(exceptions)
        if is_exempt(host, port, exceptions):
            return None
    if choice.get("proxy"):
        return parse_proxy(str(choice.get("proxy")), source=choice.find_origin("proxy"))
    if cluster.get_text("proxy-url"):
        return parse_proxy(cluster.get_text("proxy-url"), source=f"proxy-url of {cluster.title}")
    return find_proxy("https" if access.secure else "http", host, port, environ, no_proxy=exceptions)


def _check_transport(access: ClusterAccess, *, has_identity: bool) -> None:
    """Raise Refusal when credentials would travel in the clear."""
    is_local = is_loopback(access.address[0]) and (access.proxy is None or is_loopback(access.proxy.host))
    if has_identity and not access.secure and not is_local:
        raise Refusal(
            obj=f"API server {access.server} from {access.source}",
            problem="credentials would be sent to it without TLS, for everybody on the way to read",
            next_step="Give an https address, or no credentials",
        )


def _place_pem(pem: PemSource, folder: str, name: str) -> str | None:
    """Return the path of a certificate or key, written into ``folder`` when it is not a file yet."""
    if pem.text is None:
        return pem.path
    path = os.path.join(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(pem.text)
    return path
