# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS contexts: whom we trust, and our own certificate. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import os
import ssl
import tempfile
import typing as t

from .._common.errors import Refusal
from .files import PemSource, extract_certificates


class Trust(t.NamedTuple):
    """Whose certificates are accepted: ca or, without it, the system's authorities; everybody's unless ``verify``."""

    ca: PemSource = PemSource()
    verify: bool = True


class _EncryptedKey(ValueError):
    """The key wants a password, and there is nobody to ask."""


def make_context(trust: Trust, certificate: PemSource, key: PemSource, *, source: str) -> ssl.SSLContext:
    """Return a client context. Raises Refusal for what cannot be loaded, naming ``source``.

    An intermediate authority is enough, as it is for kubectl. An encrypted key is refused: OpenSSL itself would ask on the
    terminal and wait. Keys that are not in a file touch the disk only while they are loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.ca:
        _load("ca_cert", source, lambda: _load_authorities(context, trust.ca))
    else:
        context.load_default_certs()
    if certificate:
        _load("client_cert and client_key", source, lambda: _load_certificate(context, certificate, key))
    return context


def _load_authorities(context: ssl.SSLContext, ca: PemSource) -> None:
    certificates = extract_certificates(ca.read())
    if not certificates:
        raise ValueError(f"{ca.path or 'it'} holds no certificate")
    context.load_verify_locations(cadata=certificates)


def _load_certificate(context: ssl.SSLContext, certificate: PemSource, key: PemSource) -> None:
    if certificate.path and (key.path or not key):
        context.load_cert_chain(certificate.path, key.path, password=_refuse_password)
        return
    text = "\n".join(source.read() for source in (certificate, key) if source)
    descriptor, path = tempfile.mkstemp(prefix="lowtide-")  # created with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        context.load_cert_chain(path, password=_refuse_password)
    finally:
        os.unlink(path)


def _refuse_password() -> str:
    raise _EncryptedKey("the key is encrypted, and there is nobody to ask for its password")


def _load(what: str, source: str, action: t.Callable[[], None]) -> None:
    try:
        action()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        is_encrypted = isinstance(error, _EncryptedKey)
        raise Refusal(
            obj=f"{what} from {source}",
            problem=f"it cannot be loaded: {error}",
            next_step="Give a key without a password, readable by this user only"
            if is_encrypted
            else f"Correct {what}; certificates and keys are PEM",
        ) from error
