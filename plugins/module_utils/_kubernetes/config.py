# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the API server is and who we are there: module options, kubeconfig, in-cluster service account.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
import typing as t
from urllib.parse import urlsplit

from .._common.dependencies import require
from .._common.errors import Refusal

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Pem(t.NamedTuple):
    """A certificate or key: the path of a file, or its text; neither when not given."""

    path: str | None = None
    text: str | None = None

    def __bool__(self) -> bool:
        return bool(self.path or self.text)


class Access(t.NamedTuple):
    """Everything needed to open a connection. ``source`` says where it came from, for messages."""

    server: str
    source: str
    ca: Pem = Pem()
    cert: Pem = Pem()
    key: Pem = Pem()
    token: str | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.server)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return urlsplit(self.server).scheme == "https"

    @property
    def base_path(self) -> str:
        """What stands before every API path (a gateway may add one)."""
        return urlsplit(self.server).path.rstrip("/")

    def tls(self) -> ssl.SSLContext:
        """A client context. Verification is on unless ``verify`` is false; inline keys touch the disk only while they are loaded."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca:
            self._load("ca_cert", lambda: context.load_verify_locations(cafile=self.ca.path, cadata=self.ca.text))
        else:
            context.load_default_certs()
        if self.cert:
            self._load("client_cert and client_key", lambda: self._load_client(context))
        return context

    def _load_client(self, context: ssl.SSLContext) -> None:
        if self.cert.path and (self.key.path or not self.key):
            context.load_cert_chain(self.cert.path, self.key.path)
            return
        text = "\n".join(pem.text or _read(pem.path or "") for pem in (self.cert, self.key))
        descriptor, path = tempfile.mkstemp(prefix="lowtide-")  # created with mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
            context.load_cert_chain(path)
        finally:
            os.unlink(path)

    def _load(self, what: str, action: t.Callable[[], None]) -> None:
        try:
            action()
        except (OSError, ssl.SSLError, ValueError) as error:
            raise Refusal(
                obj=f"API server {self.server}",
                problem=f"{what} from {self.source} cannot be loaded: {error}",
                next_step=f"Correct {what}; certificates and keys are PEM",
            ) from error


def resolve(params: t.Mapping[str, t.Any], environment: t.Mapping[str, str]) -> Access:
    """The access that the connection options name.

    ``host`` wins over a kubeconfig; then ``kubeconfig``, KUBECONFIG, ~/.kube/config, and inside a pod its service account.
    """
    if params.get("host"):
        access = _from_options(params)
    else:
        files = _kubeconfig_files(params, environment)
        if files:
            access = _from_kubeconfig(files, params)
        elif os.path.exists(f"{SERVICE_ACCOUNT}/token"):
            access = _from_pod(environment)
        else:
            raise Refusal(
                obj="Kubernetes connection",
                problem="neither host nor kubeconfig is given, and there is no ~/.kube/config",
                next_step="Set kubeconfig (and context), or host with api_key",
            )
    parts = urlsplit(access.server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refusal(
            obj=f"API server {access.server!r}",
            problem=f"the address from {access.source} is not an http(s) URL",
            next_step="Give a URL such as https://10.0.0.1:6443",
        )
    return access


def _from_options(params: t.Mapping[str, t.Any]) -> Access:
    return Access(
        server=str(params["host"]),
        source="the option host",
        ca=Pem(path=params.get("ca_cert")),
        cert=Pem(path=params.get("client_cert")),
        key=Pem(path=params.get("client_key")),
        token=params.get("api_key"),
        verify=params.get("validate_certs") is not False,
    )


def _from_pod(environment: t.Mapping[str, str]) -> Access:
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        source="the pod's service account",
        ca=Pem(path=f"{SERVICE_ACCOUNT}/ca.crt"),
        token=_read(f"{SERVICE_ACCOUNT}/token").strip(),
    )


def _kubeconfig_files(params: t.Mapping[str, t.Any], environment: t.Mapping[str, str]) -> list[str]:
    if params.get("kubeconfig"):
        path = os.path.expanduser(str(params["kubeconfig"]))
        if not os.path.isfile(path):
            raise Refusal(
                obj=f"kubeconfig {path}", problem="there is no such file", next_step="Correct the option kubeconfig"
            )
        return [path]
    listed = environment.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    return [path for path in listed.split(os.pathsep) if path and os.path.isfile(path)]


def _from_kubeconfig(files: list[str], params: t.Mapping[str, t.Any]) -> Access:
    config = _Kubeconfig(files)
    context_name = params.get("context") or config.current
    source = f"context {context_name!r} of {config.label}"
    context = config.named("contexts", "context", context_name, option="context")
    cluster = config.named("clusters", "cluster", context.get("cluster"), option="context")
    user = config.named("users", "user", context.get("user"), option="context") if context.get("user") else {}
    if "exec" in user or "auth-provider" in user:
        return _through_library(files, context_name, source, cluster, params)
    token = params.get("api_key") or user.get("token")
    if not token and user.get("tokenFile"):
        token = _read(config.path(user, "tokenFile") or "").strip()
    verify = params.get("validate_certs")
    return Access(
        server=str(cluster.get("server") or ""),
        source=source,
        ca=Pem(path=params["ca_cert"]) if params.get("ca_cert") else config.pem(cluster, "certificate-authority"),
        cert=Pem(path=params["client_cert"]) if params.get("client_cert") else config.pem(user, "client-certificate"),
        key=Pem(path=params["client_key"]) if params.get("client_key") else config.pem(user, "client-key"),
        token=token,
        verify=not cluster.get("insecure-skip-tls-verify", False) if verify is None else bool(verify),
        server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
    )


def _through_library(
    files: list[str], context: str, source: str, cluster: t.Mapping[str, t.Any], params: t.Mapping[str, t.Any]
) -> Access:
    """Credentials that an exec plugin or an OIDC provider issues: the kubernetes package obtains them, we go on as usual."""
    library = require("kubernetes", package="kubernetes", why=f"for the exec or auth-provider credentials of {source}")
    configuration = library.client.Configuration()
    try:
        library.config.load_kube_config(
            config_file=os.pathsep.join(files),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (library.config.ConfigException, OSError, ValueError) as error:
        raise _no_credentials(source, str(error)) from error
    keys = configuration.api_key or {}
    header = str(keys.get("authorization") or keys.get("BearerToken") or "")
    if not header and not configuration.cert_file:  # the library only logs a plugin's failure
        raise _no_credentials(source, "it ended without any")
    return Access(
        server=str(configuration.host),
        source=source,
        ca=Pem(path=params.get("ca_cert") or configuration.ssl_ca_cert),
        cert=Pem(path=configuration.cert_file),
        key=Pem(path=configuration.key_file),
        token=header.removeprefix("Bearer ") or None,
        verify=bool(configuration.verify_ssl)
        if params.get("validate_certs") is None
        else bool(params["validate_certs"]),
        server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
    )


def _no_credentials(source: str, why: str) -> Refusal:
    return Refusal(
        obj=source,
        problem=f"its credential plugin gave no credentials: {why}",
        next_step="Run the plugin by hand, or give api_key",
    )


class _Kubeconfig:
    """One or several kubeconfig files; of two entries with one name the first counts, as with kubectl."""

    def __init__(self, files: list[str]) -> None:
        yaml = require("yaml", package="PyYAML", why="to read a kubeconfig")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.label = os.pathsep.join(files)
        self.current = ""
        self._documents: list[tuple[str, dict[str, t.Any]]] = []
        for path in files:
            try:
                document = yaml.load(_read(path), Loader=loader)
            except yaml.YAMLError as error:
                raise Refusal(
                    obj=f"kubeconfig {path}",
                    problem=f"it is not YAML: {error}",
                    next_step="Correct or replace the file",
                ) from error
            if not isinstance(document, dict):
                raise Refusal(
                    obj=f"kubeconfig {path}",
                    problem=f"it holds a {type(document).__name__}, not a mapping",
                    next_step="Correct or replace the file",
                )
            self._documents.append((os.path.dirname(os.path.abspath(path)), document))
            self.current = self.current or str(document.get("current-context") or "")

    def named(self, section: str, key: str, name: t.Any, *, option: str) -> dict[str, t.Any]:
        """The entry called ``name``, with the folder that its relative paths start from; a Refusal lists what exists."""
        known: list[str] = []
        for folder, document in self._documents:
            for entry in document.get(section) or []:
                known.append(str(entry.get("name")))
                if entry.get("name") == name:
                    return {**(entry.get(key) or {}), "": folder}
        raise Refusal(
            obj=f"kubeconfig {self.label}",
            problem=f"it has no {key} {name!r}; it has {', '.join(known) or 'none'}",
            next_step=f"Set the option {option} to one of these",
        )

    @staticmethod
    def path(entry: t.Mapping[str, t.Any], key: str) -> str | None:
        """A file named in an entry; relative to the kubeconfig that holds it."""
        return os.path.join(str(entry[""]), str(entry[key])) if entry.get(key) else None

    def pem(self, entry: t.Mapping[str, t.Any], key: str) -> Pem:
        """A certificate or key: inline data wins over a file, as with kubectl."""
        data = entry.get(f"{key}-data")
        if not data:
            return Pem(path=self.path(entry, key))
        try:
            return Pem(text=base64.b64decode(data, validate=True).decode("ascii"))
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Refusal(
                obj=f"kubeconfig {self.label}",
                problem=f"{key}-data is not base64 of PEM ({error})",
                next_step="Correct or replace the file",
            ) from error


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise Refusal(
            obj=f"file {path}", problem=f"it cannot be read: {error.strerror}", next_step="Correct the path or its mode"
        ) from error
