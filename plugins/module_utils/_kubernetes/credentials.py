# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who we are for an API server: a token, a file that holds one, a certificate, or a plugin that issues them.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import logging
import os
import ssl
import threading
import typing as t

from .._common.dependencies import require
from .._common.errors import Refusal
from .files import PemSource, check_token, read_text
from .kubeconfig import Entry, find_secrets

PLUGIN_SECONDS = 60.0
OLDEST_VERIFYING = (25, 3)
"""The version of the library from which on it verifies an identity provider."""
_PROVIDERS = ("oidc",)


class Credentials(t.NamedTuple):
    """Headers to send, and a certificate to show. ``secrets`` are the values that nobody may read."""

    headers: t.Mapping[str, str] = {}
    certificate: PemSource = PemSource()
    key: PemSource = PemSource()
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Credentials(...)"


class StaticSource:
    """Credentials that stay what they are."""

    can_renew = False

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def obtain(self, _seconds: float) -> Credentials:
        """Return them."""
        return self._credentials


class TokenFileSource:
    """A token in a file that somebody else renews, such as a projected service account token."""

    can_renew = True

    def __init__(self, path: str, *, certificate: PemSource, key: PemSource) -> None:
        self._path = path
        self._certificate = certificate
        self._key = key

    def obtain(self, _seconds: float) -> Credentials:
        """Read the file. Raises Refusal."""
        token = check_token(read_text(self._path), source=f"file {self._path}")
        return make_bearer(token)._replace(certificate=self._certificate, key=self._key)


class PluginSource:
    """A user whose credentials an exec plugin or an OIDC provider issues: the package kubernetes asks it.

    ``certificate`` and ``key`` are shown where the plugin issues none. ``warnings`` gets what the user should know.
    """

    can_renew = True

    def __init__(
        self, cluster: Entry, user: Entry, *, certificate: PemSource, key: PemSource, warnings: list[str]
    ) -> None:
        self._title = user.title
        self._certificate = certificate
        self._key = key
        self._warnings = warnings
        self._hint = ""
        self._values = self._prepare_exec(user) if "exec" in user.values else self._prepare_provider(user)
        self._cluster: dict[str, t.Any] = {"server": cluster.get_text("server")}
        if self._values.get("exec", {}).get("provideClusterInfo"):
            authority = cluster.get_path("certificate-authority")
            self._cluster = {**cluster.values, **({"certificate-authority": authority} if authority else {})}

    def obtain(self, seconds: float) -> Credentials:
        """Ask the plugin, for so many seconds. Raises Refusal with what it says when it issues nothing."""
        library = require("kubernetes", package="kubernetes", why=f"for the credential plugin of {self._title}")
        if "auth-provider" in self._values:
            refuse_unverifying_library(library.__version__)
        configuration = library.client.Configuration()
        words = self._run(library, configuration, seconds)
        keys = configuration.api_key or {}
        header = str(keys.get("authorization") or keys.get("BearerToken") or "")
        certificate, key = PemSource(path=configuration.cert_file), PemSource(path=configuration.key_file)
        if not header and not certificate:
            raise self._refuse(words or "it ended without any")
        if not certificate:
            certificate, key = self._certificate, self._key
        if not header:
            return Credentials(certificate=certificate, key=key)
        token = check_token(header.removeprefix("Bearer "), source=f"the plugin of {self._title}")
        return make_bearer(token)._replace(certificate=certificate, key=key)

    def _run(self, library: t.Any, configuration: t.Any, seconds: float) -> str:
        """Let the library load the credentials; returns what it has to say."""
        document = {
            "current-context": "chosen",
            "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
            "clusters": [{"name": "chosen", "cluster": self._cluster}],
            "users": [{"name": "chosen", "user": self._values}],
        }
        listener = _Listener()
        failures: list[Exception] = []
        refresh_token = self._get_refresh_token()

        def load() -> None:
            try:
                library.config.load_kube_config_from_dict(
                    document, context="chosen", client_configuration=configuration, persist_config=False
                )
            except Exception as error:  # whatever the library and the plugins of its own fail with
                failures.append(error)

        root = logging.getLogger()
        root.addHandler(listener)  # the library tells the plugin's failure to the root logger only
        try:
            thread = threading.Thread(target=load, name="credential plugin", daemon=True)
            thread.start()
            thread.join(max(0.0, min(seconds, PLUGIN_SECONDS)))
        finally:
            root.removeHandler(listener)
        if thread.is_alive():
            limit = min(seconds, PLUGIN_SECONDS)
            raise self._refuse(f"it has not ended within {limit:.0f} s; it may be waiting for somebody to log in")
        if failures:
            raise self._refuse(str(failures[0]) or type(failures[0]).__name__) from failures[0]
        if self._get_refresh_token() != refresh_token:
            self._warnings.append(
                f"The identity provider has issued another refresh token for {self._title}; the kubeconfig still holds the"
                " old one. Log in again if kubectl is refused"
            )
        return "; ".join(listener.words)

    def _get_refresh_token(self) -> object:
        return ((self._values.get("auth-provider") or {}).get("config") or {}).get("refresh-token")

    def _prepare_exec(self, user: Entry) -> dict[str, t.Any]:
        settings = dict(user.get_mapping("exec"))
        command = str(settings.get("command") or "")
        if settings.get("interactiveMode") == "Always":
            raise Refusal(
                obj=user.title,
                problem=f"its credential plugin {command} needs a terminal (interactiveMode: Always)",
                next_step="Use a context whose credentials need no terminal, or give api_key",
            )
        if os.sep in command:
            settings["command"] = user.resolve_path(command, "exec.command")
        self._hint = str(settings.get("installHint") or "").strip()
        return {"exec": settings}

    def _prepare_provider(self, user: Entry) -> dict[str, t.Any]:
        provider = user.get_mapping("auth-provider")
        if provider.get("name") not in _PROVIDERS:
            raise Refusal(
                obj=user.title,
                problem=f"its auth-provider is {provider.get('name')!r}, and only oidc is known, as with kubectl",
                next_step="Use an exec plugin of that provider, or give api_key",
            )
        config = dict(provider.get("config") or {})
        if not config.get("idp-certificate-authority") and not config.get("idp-certificate-authority-data"):
            # The library does not verify the provider's certificate when it is not told by what.
            config["idp-certificate-authority"] = _find_authorities()
        return {"auth-provider": {"name": provider["name"], "config": config}}

    def _refuse(self, words: str) -> Refusal:
        for secret in sorted(find_secrets(self._values), key=len, reverse=True):
            words = words.replace(secret, "***")
        hint = f". {self._hint}" if self._hint else ""
        return Refusal(
            obj=self._title,
            problem=f"its credential plugin gave no credentials: {' '.join(words.split())[:1000]}",
            next_step=f"Run the plugin by hand, or give api_key{hint}",
        )


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


def refuse_unverifying_library(version: str) -> None:
    """Refuse a library that sends the refresh token to an identity provider whose certificate it has not verified."""
    if tuple(map(int, version.split(".")[:2])) < OLDEST_VERIFYING:
        oldest = ".".join(map(str, OLDEST_VERIFYING))
        raise Refusal(
            obj="Python library kubernetes",
            problem=f"its version is {version}, and {oldest} is the oldest that verifies an OIDC provider's certificate",
            next_step="Install kubernetes 33.1 or newer for the interpreter of this task, or give api_key",
        )


def make_bearer(token: str) -> Credentials:
    """Return the credentials of a bearer token."""
    return Credentials({"Authorization": f"Bearer {token}"}, secrets=(token,))


def make_basic(username: str, password: str) -> Credentials:
    """Return the credentials of a user name and password."""
    pair = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Credentials({"Authorization": f"Basic {pair}"}, secrets=(password, pair))


def _find_authorities() -> str:
    """Return the file of the system's authorities, or that of the package certifi, which comes with kubernetes."""
    path = ssl.get_default_verify_paths().cafile
    if path:
        return path
    return str(require("certifi", package="certifi", why="to verify the identity provider's certificate").where())
