# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubeconfig files, read as kubectl reads them, and strictly: what is not understood is refused, never ignored.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import os
import re
import typing as t

from .._common.dependencies import require
from .._common.errors import Refusal
from .fields import Json
from .files import PemSource, decode_base64, read_text

_CLUSTER_KEYS = frozenset(
    {
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority",
        "certificate-authority-data",
        "proxy-url",
        "disable-compression",
        "extensions",
    }
)
_USER_KEYS = frozenset(
    {
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
        "username",
        "password",
        "auth-provider",
        "exec",
        "extensions",
    }
)
_CONTEXT_KEYS = frozenset({"cluster", "user", "namespace", "extensions"})
_SECRET_KEYS = frozenset(
    {"token", "password", "client-key-data", "id-token", "refresh-token", "access-token", "client-secret"}
)
_SECRET_VARIABLE = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)


class Entry:
    """A cluster, user or context of a kubeconfig: its values, and the folder that its relative paths start from."""

    def __init__(self, values: Json, *, title: str, folder: str | None) -> None:
        self.values = values
        self.title = title
        self.folder = folder

    def get_text(self, key: str) -> str:
        """Return a text, empty when it is not there. Raises Refusal for another type, without showing the value."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._refuse(f"its {key} is a {type(value).__name__}, not a text", "Write it in quotes")
        return value

    def get_flag(self, key: str) -> bool:
        """Return a boolean, False when it is not there. Raises Refusal for another type."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._refuse(f"its {key} is {value!r}", "Write true or false")
        return bool(value)

    def get_texts(self, key: str) -> list[str]:
        """Return a list of texts. Raises Refusal for another type."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._refuse(f"its {key} is not a list of texts", "Write it as a list")
        return value

    def get_mapping(self, key: str) -> Json:
        """Return a mapping, empty when it is not there. Raises Refusal for another type."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._refuse(f"its {key} is a {type(value).__name__}, not a mapping", "Correct the kubeconfig")
        return value

    def get_path(self, key: str) -> str | None:
        """Return the path of a file, made absolute. Raises Refusal for a relative one where there is no folder."""
        text = self.get_text(key)
        return self.resolve_path(text, key) if text else None

    def resolve_path(self, text: str, key: str) -> str:
        """Return a path as seen from the kubeconfig that names it."""
        if os.path.isabs(text):
            return text
        if self.folder is None:
            raise self._refuse(
                f"its {key} is the relative path {text}, and a kubeconfig given as a mapping has no folder",
                "Give an absolute path",
            )
        return os.path.join(self.folder, text)

    def get_pem(self, key: str) -> PemSource:
        """Return a certificate or key: inline data wins over a file, as with kubectl."""
        data = self.get_text(f"{key}-data")
        if data:
            return PemSource(text=decode_base64(data, obj=f"{key}-data of {self.title}"))
        return PemSource(path=self.get_path(key))

    def check_keys(self, known: frozenset[str]) -> None:
        """Raise Refusal when there is a key that is not understood: ignoring it could mean another identity."""
        unknown = sorted(str(key) for key in self.values if key not in known)
        if unknown:
            raise self._refuse(
                f"it has {', '.join(unknown)}, which this collection does not know", "Remove it from the kubeconfig"
            )

    def _refuse(self, problem: str, next_step: str) -> Refusal:
        return Refusal(obj=self.title, problem=problem, next_step=next_step)


class Selection(t.NamedTuple):
    """What a context stands for."""

    name: str
    cluster: Entry
    user: Entry


class Kubeconfig:
    """Kubeconfig files, or one given as a mapping; of two entries with one name the first counts, as with kubectl."""

    def __init__(self, source: t.Sequence[str] | Json) -> None:
        self.label = "given as a mapping" if isinstance(source, dict) else os.pathsep.join(source)
        self.current = ""
        self._documents: list[tuple[str | None, str, Json]] = []
        documents: list[tuple[str | None, str, t.Any]]
        if isinstance(source, dict):
            documents = [(None, self.label, source)]
        else:
            documents = [(os.path.dirname(os.path.abspath(path)), path, _load_yaml(path)) for path in source]
        for folder, label, document in documents:
            if document is None:
                continue  # an empty file has no entries
            if not isinstance(document, dict):
                raise Refusal(
                    obj=f"kubeconfig {label}",
                    problem=f"it holds a {type(document).__name__}, not a mapping",
                    next_step="Correct or replace the file",
                )
            self._documents.append((folder, label, document))
            self.current = self.current or str(document.get("current-context") or "")

    @property
    def is_empty(self) -> bool:
        """Whether it has neither contexts nor clusters, as a file that was only touched."""
        return not any(self._list_entries("contexts")) and not any(self._list_entries("clusters"))

    def select(self, context: str) -> Selection:
        """Return what a context, or without a name the current one, stands for. Raises Refusal, naming what there is."""
        name = context or self.current
        if not name:
            names = ", ".join(str(entry.get("name")) for _folder, _label, entry in self._list_entries("contexts"))
            raise Refusal(
                obj=f"kubeconfig {self.label}",
                problem=f"it has no current-context, and the option context is not given; it has {names or 'no contexts'}",
                next_step="Set the option context",
            )
        chosen = self._find("contexts", "context", name, _CONTEXT_KEYS)
        cluster = self._find("clusters", "cluster", chosen.get_text("cluster"), _CLUSTER_KEYS)
        user = Entry({}, title=f"context {name!r} of kubeconfig {self.label}", folder=None)
        if chosen.get_text("user"):
            user = self._find("users", "user", chosen.get_text("user"), _USER_KEYS)
        return Selection(name, cluster, user)

    def _find(self, section: str, key: str, name: str, known_keys: frozenset[str]) -> Entry:
        names: list[str] = []
        for folder, label, entry in self._list_entries(section):
            names.append(str(entry.get("name")))
            if entry.get("name") != name:
                continue
            values = entry.get(key)
            title = f"{key} {name!r} of kubeconfig {label}"
            if values is not None and not isinstance(values, dict):
                raise Refusal(
                    obj=title,
                    problem=f"it is a {type(values).__name__}, not a mapping",
                    next_step="Correct or replace the file",
                )
            match = Entry(values or {}, title=title, folder=folder)
            match.check_keys(known_keys)
            return match
        raise Refusal(
            obj=f"kubeconfig {self.label}",
            problem=f"it has no {key} {name!r}; it has {', '.join(names) or 'none'}",
            next_step="Set the option context to one that is complete, or correct the file",
        )

    def _list_entries(self, section: str) -> t.Iterator[tuple[str | None, str, Json]]:
        for folder, label, document in self._documents:
            entries = document.get(section)
            if entries is None:
                continue
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise Refusal(
                    obj=f"kubeconfig {label}",
                    problem=f"its {section} are not a list of mappings with a name",
                    next_step="Correct or replace the file",
                )
            for entry in entries:
                yield folder, label, entry


def find_secrets(document: object) -> set[str]:
    """Return what must not be shown of a kubeconfig, or a part of one: tokens, passwords, keys, a plugin's secrets."""
    secrets: set[str] = set()
    _collect_secrets(document, secrets)
    return secrets


def limit_masking(masked: set[str], kubeconfig: object) -> None:
    """Correct ``no_log_values`` after the option kubeconfig, which is masked whole because it may hold credentials.

    Paths are shown, since messages name them. Of a mapping only secrets stay masked: hiding each of its texts would hide
    every ``v1`` of a result.
    """
    masked.difference_update(_list_texts(kubeconfig))
    masked.update(find_secrets(kubeconfig))


def _list_texts(node: object) -> t.Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _list_texts(item)
    elif isinstance(node, dict):
        for item in node.values():
            yield from _list_texts(item)


def _collect_secrets(node: object, secrets: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect_secrets(item, secrets)
    if not isinstance(node, dict):
        return
    is_variable = isinstance(node.get("name"), str) and _SECRET_VARIABLE.search(node["name"])  # of an exec plugin
    for key, value in node.items():
        if isinstance(value, str) and value.strip() and (key in _SECRET_KEYS or (is_variable and key == "value")):
            secrets.add(value)
        _collect_secrets(value, secrets)


def _load_yaml(path: str) -> t.Any:
    text = read_text(path)
    yaml = require("yaml", package="PyYAML", why="to read a kubeconfig")
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the whole error quotes the line, which may hold a token
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise Refusal(
            obj=f"kubeconfig {path}",
            problem=f"it is not YAML{place}: {getattr(error, 'problem', None) or type(error).__name__}",
            next_step="Correct or replace the file",
        ) from error
