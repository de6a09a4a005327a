# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local files, certificates and header values, checked as they are read.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
import typing as t

from .._common.errors import OpsError, Refusal

_TOKEN = re.compile(r"[\x21-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CERTIFICATE = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)


class PemSource(t.NamedTuple):
    """A certificate or key: the path of a file, or its text; neither when not given."""

    path: str | None = None
    text: str | None = None

    def __bool__(self) -> bool:
        return bool(self.path or self.text)

    def __repr__(self) -> str:
        return f"PemSource(path={self.path!r})"

    def read(self) -> str:
        """Return the text. Raises Refusal for a file that cannot be read."""
        return self.text if self.text is not None else read_text(self.path or "")


def read_text(path: str) -> str:
    """Return what is in a file, whose letters need not all be UTF-8. Raises Refusal when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise Refusal(
            obj=f"file {path}",
            problem=f"it cannot be read: {getattr(error, 'strerror', None) or error}",
            next_step="Correct the path or its mode",
        ) from error


def write_private(path: str, text: str) -> None:
    """Replace a file by one that only its owner may read. Raises OpsError; what there was before stays then."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise OpsError(
            obj=f"file {path}",
            problem=f"it cannot be written: {error.strerror or error}",
            next_step="Create its folder, or correct the path or the folder's mode",
        ) from error


def decode_base64(data: str, *, obj: str) -> str:
    """Return the text of base64 that may be broken into lines, as kubectl takes it. Raises Refusal."""
    try:
        return base64.b64decode("".join(data.split()), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError) as error:
        raise Refusal(
            obj=obj, problem=f"it is not base64 ({error})", next_step="Correct or replace the kubeconfig"
        ) from error


def extract_certificates(text: str) -> str:
    """Return the certificates of a bundle without what else stands in it, which need not be ASCII; empty when none is."""
    return "\n".join(block for block in _CERTIFICATE.findall(text) if block.isascii())


def check_token(value: str, *, source: str) -> str:
    """Return a bearer token without the blanks around it.

    Raises Refusal, which never shows the value, when it is empty or holds what no token has and no header may.
    """
    token = value.strip()
    if token.lower().startswith("bearer "):
        problem = "it begins with 'Bearer', which is added by this collection"
    elif not token:
        problem = "it is empty"
    elif not _TOKEN.fullmatch(token):
        problem = "it holds control characters, blanks or letters outside ASCII, which no bearer token has"
    else:
        return token
    raise Refusal(obj=f"the token from {source}", problem=problem, next_step="Give the token alone, in one line")


def check_header(value: str, *, obj: str) -> str:
    """Return a text as the value of a header, whose letters are sent as UTF-8. Raises Refusal for control characters."""
    if not value or _CONTROL.search(value):
        raise Refusal(
            obj=obj,
            problem="it holds control characters" if value else "it is empty",
            next_step="Give a name in one line",
        )
    return value.encode("utf-8", "surrogateescape").decode("latin-1")
