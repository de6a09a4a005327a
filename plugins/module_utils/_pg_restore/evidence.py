# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sign the evidence of a drill with Ed25519, keep it in the bucket, and read the last one back.

Private to lowtide.ops: do not import from other collections.

The signature is of the bytes of the document as they lie there, in an object of its own beside it, so that any tool can
check it: ``openssl pkeyutl -verify -pubin -inkey drill.pub -rawin -in NAME.json -sigfile NAME.json.sig``.
"""

from __future__ import annotations

import base64
import json
import os
import typing as t
from dataclasses import dataclass, field
from datetime import datetime

from .._backup import keys
from .._backup.manifest import parse_stamp, stamp
from .._common.dependencies import require
from .._common.errors import OpsError, Refusal
from .._common.text import join_some

if t.TYPE_CHECKING:
    from .._s3.bucket import Bucket

FORMAT = "lowtide.ops/restore_drill"
FORMAT_VERSION = 1
FOLDER = "restore-drills"
SIGNATURE = ".sig"
STARTED = ".started"
"""Written before a drill, in the place of its evidence. It is signed by nobody, and proves nothing."""
_WHY = "to sign and check the evidence of a drill"


class Verifier:
    """The public keys, in base64, whose evidence counts. It takes no secret to look for the last drill."""

    def __init__(self, public_keys: t.Iterable[str]) -> None:
        ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", package="cryptography", why=_WHY)
        self._invalid: type[Exception] = require(
            "cryptography.exceptions", package="cryptography", why=_WHY
        ).InvalidSignature
        self._keys = []
        for text in public_keys:
            try:
                self._keys.append(ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True)))
            except ValueError as error:
                raise Refusal(
                    obj=f"option public_keys: {text}",
                    problem="it is no Ed25519 public key of 32 bytes in base64",
                    next_step="Give public_key as the evidence of a drill names it",
                ) from error

    def is_ours(self, body: bytes, signature: bytes) -> bool:
        """Return whether one of these keys has signed some bytes."""
        return any(self._has_signed(key, body, signature) for key in self._keys)

    def _has_signed(self, key: t.Any, body: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, body)
        except self._invalid:
            return False
        return True


class Signer(Verifier):
    """An Ed25519 key of the site, read from a PEM file; evidence of ``others``, which it has replaced, counts as well."""

    def __init__(self, path: str, others: t.Iterable[str] = ()) -> None:
        serialization = require("cryptography.hazmat.primitives.serialization", package="cryptography", why=_WHY)
        ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", package="cryptography", why=_WHY)
        # Before version 3.1, as in Ubuntu 20.04, it had to be given.
        backend = require("cryptography.hazmat.backends", package="cryptography", why=_WHY).default_backend()
        step = "Make one: openssl genpkey -algorithm ed25519 -out drill.pem, mode 0600"
        try:
            with open(path, "rb") as file:
                key = serialization.load_pem_private_key(file.read(), password=None, backend=backend)
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            raise Refusal(
                obj=f"option signing_key: {path}", problem=f"it cannot be read: {error.strerror}", next_step=step
            ) from error
        except (ValueError, TypeError) as error:
            raise Refusal(
                obj=f"option signing_key: {path}",
                problem="it is no private key in PEM without a passphrase",
                next_step=step,
            ) from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise Refusal(obj=f"option signing_key: {path}", problem="it is not an Ed25519 key", next_step=step)
        if mode & 0o077:
            raise Refusal(
                obj=f"option signing_key: {path}", problem="others may read it", next_step="Set its mode to 0600"
            )
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode()
        super().__init__([self.public_key, *others])

    def sign(self, body: bytes) -> bytes:
        """Return the signature of some bytes."""
        signature: bytes = self._key.sign(body)
        return signature


@dataclass(frozen=True)
class Drill:
    """A proven drill that the bucket has evidence of, and its bytes as they lie there. ``name`` is the run's."""

    url: str
    finished_at: datetime
    document: dict[str, t.Any]
    name: str
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class Drills:
    """The last proven drill, and newer evidence that does not count, with the reason."""

    last: Drill | None
    bad: list[tuple[str, str]]


def name_folder(place: keys.Place) -> str:
    """Return the key prefix of a database's evidence, outside of the folders of its backups."""
    parts = [
        *([place.prefix] if place.prefix else []),
        FOLDER,
        keys.encode_name(place.database),
        place.system_identifier,
    ]
    return "/".join(parts) + "/"


def write_document(document: t.Mapping[str, t.Any]) -> bytes:
    """Return the bytes of the evidence, which are signed as they are."""
    own = {"format": FORMAT, "format_version": FORMAT_VERSION, **document}
    return json.dumps(own, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def try_place(
    bucket: Bucket, place: keys.Place, folder: str | None, name: str, document: t.Mapping[str, t.Any]
) -> None:
    """Note that a drill has begun where its evidence will be: who may not write there learns it before the restore."""
    bucket.put(f"{name_folder(place)}{name}{STARTED}", _write_begun(document), content_type="application/json")
    if folder is not None:
        try_local(folder, name, document)


def try_local(folder: str, name: str, document: t.Mapping[str, t.Any]) -> None:
    """Do as :func:`try_place` for evidence that is kept in a folder of this host only."""
    write_local(folder, {f"{name}{STARTED}": _write_begun(document)})


def _write_begun(document: t.Mapping[str, t.Any]) -> bytes:
    return json.dumps({"format": FORMAT, **document}, sort_keys=True).encode() + b"\n"


def check_local(folder: str) -> None:
    """Refuse a folder of this host that evidence cannot be written to; nothing is written."""
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        return
    raise Refusal(
        obj=f"option evidence_dir: {folder}",
        problem=f"evidence cannot be written there: {existing} is "
        + ("not writable for this user" if os.path.isdir(existing) else "no directory"),
        next_step="Name a folder that this user may write to, or make it for this user, and run again",
    )


def save(bucket: Bucket, place: keys.Place, name: str, body: bytes, signature: bytes) -> str:
    """Write the evidence, its signature first: without one it does not count. Return the key."""
    key = f"{name_folder(place)}{name}.json"
    bucket.put(key + SIGNATURE, signature, content_type="application/octet-stream")
    bucket.put(key, body, content_type="application/json")
    return key


def save_local(folder: str, name: str, body: bytes, signature: bytes) -> str:
    """Write the evidence to a folder of this host as well; return its path."""
    write_local(folder, {f"{name}.json{SIGNATURE}": signature, f"{name}.json": body})
    return os.path.join(folder, f"{name}.json")


def write_local(folder: str, files: t.Mapping[str, bytes]) -> None:
    """Write files to a folder of this host, each whole or not at all."""
    try:
        os.makedirs(folder, exist_ok=True)
        for name, content in files.items():
            path = os.path.join(folder, name)
            with open(f"{path}.new", "wb") as file:
                file.write(content)
            os.replace(f"{path}.new", path)
    except OSError as error:
        raise OpsError(
            obj=f"option evidence_dir: {folder}",
            problem=f"{join_some(list(files))} cannot be written there: {error.strerror}",
            next_step="Name a folder that this user may write to, and run again",
        ) from error


def find_last(
    bucket: Bucket, place: keys.Place, signer: Verifier, *, latest: datetime, query: str | None = None
) -> Drills:
    """Return the last proven drill that is not dated after ``latest``; of newer evidence that does not count, why.

    Where a ``query`` is given, a drill that has asked another one is passed over.
    """
    folder = name_folder(place)
    listed = {entry.key for entry in bucket.list_objects(folder)}
    bad: list[tuple[str, str]] = []
    for key in sorted((key for key in listed if key.endswith(".json")), reverse=True):
        if key + SIGNATURE not in listed:
            bad.append((bucket.url(key), "it is not signed"))
            continue
        body, signature = bucket.read(key), bucket.read(key + SIGNATURE)
        problem = None if signer.is_ours(body, signature) else "its signature is not of this key"
        name = key.rpartition("/")[2][: -len(".json")]
        drill = None if problem else read_document(bucket.url(key), place, name=name, body=body, signature=signature)
        if drill is not None and query and str(drill.document.get("query", "")).strip() != query.strip():
            continue
        if drill is not None and drill.finished_at <= latest:
            return Drills(drill, bad)
        if drill is not None:
            problem = explain_future(drill.finished_at)
        bad.append((bucket.url(key), problem or "it is not of a proven drill of this database"))
    return Drills(None, bad)


def explain_future(finished: datetime) -> str:
    """Return why evidence of a clock that was wrong does not count: for it every later drill would be an older one."""
    return f"it is dated in the future ({stamp(finished)}); set the clock of the server that it names by NTP"


def read_document(url: str, place: keys.Place, *, name: str, body: bytes, signature: bytes) -> Drill | None:
    """Return the drill that a document is of; None where it proves none of this database."""
    try:
        document = json.loads(body)
        finished = parse_stamp(document["finished_at"])
        is_ours = (
            document["format"] == FORMAT
            and document["format_version"] == FORMAT_VERSION
            and document["proven"] is True
            and document["database"] == place.database
            and document["source_system_identifier"] == place.system_identifier
        )
    except (ValueError, KeyError, TypeError):
        return None
    return Drill(url, finished, document, name, body, signature) if is_ours else None


def find_last_local(folder: str, signer: Verifier, *, expected: t.Mapping[str, t.Any], latest: datetime) -> Drills:
    """Return the last proven drill that :func:`save_local` has written to a folder, of those whose documents say
    ``expected``, of which a tuple is of values that all will do, and that is not dated after ``latest``; of newer
    evidence that does not count, why.
    """
    allowed = {key: value if isinstance(value, tuple) else (value,) for key, value in expected.items()}
    bad: list[tuple[str, str]] = []
    try:
        names = sorted((name for name in os.listdir(folder) if name.endswith(".json")), reverse=True)
    except FileNotFoundError:
        return Drills(None, bad)
    except OSError as error:
        raise Refusal(
            obj=f"option evidence_dir: {folder}",
            problem=f"it cannot be read: {error.strerror}",
            next_step="Name a folder that this user may read and write",
        ) from error
    for name in names:
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                body = file.read()
            document = json.loads(body)
            if any(document.get(key) not in values for key, values in allowed.items()):
                continue  # of another stanza, or of another question
            with open(path + SIGNATURE, "rb") as file:
                signature = file.read()
            finished = parse_stamp(document["finished_at"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            bad.append((path, f"it or its signature cannot be read ({type(error).__name__})"))
            continue
        if not signer.is_ours(body, signature):
            bad.append((path, "its signature is not of this key"))
            continue
        if finished > latest:
            bad.append((path, explain_future(finished)))
            continue
        return Drills(Drill(path, finished, document, name[: -len(".json")], body, signature), bad)
    return Drills(None, bad)
