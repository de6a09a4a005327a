# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates in the values of a Secret: whose they are, and until when.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import datetime
import re
import typing as t

from .._common.dependencies import require
from .._common.errors import OpsError

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Certificate(t.NamedTuple):
    """A certificate of a chain, the first of which is the one that is shown."""

    key: str
    subject: str
    not_before: datetime.datetime
    not_after: datetime.datetime


def read_certificates(values: t.Mapping[str, bytes], *, title: str) -> list[Certificate]:
    """Return every certificate of every value, in their order. Raises OpsError for what is none, naming the key."""
    found = [(key, match[0]) for key, value in sorted(values.items()) for match in _PEM.finditer(value)]
    if not found:
        return []
    x509 = require("cryptography.x509", package="cryptography", why="to read certificates")
    certificates = []
    for key, pem in found:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise OpsError(
                obj=f"key {key} of {title}",
                problem="it has a certificate that cannot be read",
                next_step="Put the whole certificate there, in PEM",
            ) from None
        certificates.append(
            Certificate(
                key,
                certificate.subject.rfc4514_string(),
                _read_time(certificate, "not_valid_before"),
                _read_time(certificate, "not_valid_after"),
            )
        )
    return certificates


def _read_time(certificate: t.Any, name: str) -> datetime.datetime:
    """Return a time of a certificate; before its release 42 the library has it without a time zone only."""
    time: datetime.datetime | None = getattr(certificate, f"{name}_utc", None)
    return time or getattr(certificate, name).replace(tzinfo=datetime.UTC)
