# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store in objects of a Kubernetes namespace: a Lease for each site, ConfigMaps for journals and reports.

Private to lowtide.ops: do not import from other collections. A line of a journal is a key of a ConfigMap; where one is
full, another one follows (``PART_BYTES``). A full one never changes again, so each run reads it once.

There is no lock across machines: each write names the resourceVersion that was read, so that the server refuses it when
somebody has written meanwhile. Whoever becomes the owner writes its token into every journal that is not settled, so
that a late write of the owner before is refused as well. Expiry is judged by the server's clock (the Date of its
answers, to the second), which is what ``renewTime`` is written by, too.
"""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Backoff, Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import resolve_access
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.cluster import check_identity
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.errors import (
    ApiError,
    Conflict,
    NotFound,
    WriteUnknown,
)

from .events import Event
from .journal import Lines, decode_last_line, decode_lines, encode_line
from .lease import LeaseLost, LeaseRecord
from .options import read_options
from .part_copies import PartCopies
from .processes import Owner
from .state import is_settled
from .store import PATIENCE, Store, StoreUnreachable, explain_holder, find_obstacle

Json = dict[str, Any]
SPEC: dict[str, Any] = {**CONNECTION_SPEC, "namespace": {"type": "str", "required": True}}
PART_BYTES = 32 * 1024
"""Bytes of lines in one ConfigMap: each event writes it anew, and etcd keeps what it was. A longer line has one of its
own, up to the 1 MiB that it can hold; the server refuses one that is longer still."""
REPORT_BYTES = 700_000
"""Bytes of a report that are kept as text."""
MANY_PARTS = 2
"""Parts that are not known yet, of which more are read by one request."""
PAUSE = 0.2
"""Seconds between two attempts to write what somebody else has changed meanwhile."""
LAST_BYTES = 100_000
"""Bytes of a last line that stand among the annotations as well, which can hold 256 KiB."""
RECORD, TOKEN, LAST, JOURNAL = (f"lowtide.ops/{name}" for name in ("lease", "token", "last", "journal"))
PART, CONTINUED = "lowtide.ops/part", "lowtide.ops/continued"
SITE_LABEL, JOURNAL_LABEL, KIND_LABEL = (f"lowtide.ops/window-{name}" for name in ("site", "journal", "object"))


class KubernetesStore(Store):
    """The store of ``site`` in the namespace that ``connection`` names beside the options of a Kubernetes module.

    ``folder`` is a directory of this run, whose processes take turns by a file in it.
    """

    def __init__(
        self, connection: Mapping[str, Any], *, site: str, ttl: float, folder: Path, patience: float = PATIENCE
    ) -> None:
        self._connection = dict(connection)
        self._options = read_options(SPEC, connection, obj="window_store.kubernetes")
        self._namespace = str(self._options["namespace"])
        self._site = site
        self._folder = folder
        self._copies = PartCopies(folder)
        self.patience = patience
        self.ttl = ttl
        self._access = resolve_access(self._options)
        self._client: Client | None = None
        self._first: LeaseRecord | None = None
        self._has_read = False
        self._parts: dict[str, list[Json]] = {}
        self._last: dict[str, Event | None] = {}
        self._is_identified = False
        self._depth = 0
        self._offset = 0.0

    @property
    def location(self) -> str:
        """The API server, the namespace and the site."""
        return f"site {self._site} in namespace {self._namespace} of {self._access.server}"

    def describe_place(self) -> dict[str, Any]:
        """Return the connection."""
        place = {"kind": "kubernetes", "connection": self._connection, "site": self._site, "ttl": self.ttl}
        return {**place, "folder": str(self._folder)}

    # -- requests -------------------------------------------------------------------------------------------------

    @contextmanager
    def _ask(self) -> Iterator[Client]:
        """Return a client that asks again for a while; without an answer, or with a refusal, it is StoreUnreachable.

        Inside :meth:`lock` it is one for all, with one connection.
        """
        client = self._client or Client(self._access, run_id="window", deadline=Deadline(self.patience))
        if self._depth == 0:
            client.deadline = Deadline(self.patience)
        self._depth += 1
        try:
            self._identify(client)
            yield client
        except ApiError as error:
            raise StoreUnreachable(str(error)) from error
        finally:
            self._depth -= 1
            self._offset = client.clock_offset or self._offset
            if client is not self._client:
                client.close()

    def _identify(self, client: Client) -> None:
        """Obtain credentials, which a plugin may fail to give for a moment, and look whose cluster answers."""
        backoff = Backoff()
        while True:
            try:
                self._access.credentials(seconds=client.deadline.remaining)
                if self._access.secure:
                    self._access.tls()
                break
            except Refusal as error:
                if client.deadline.passed:
                    raise StoreUnreachable(str(error)) from error
            client.deadline.pause(backoff.take_pause())
        if not self._is_identified:
            try:
                check_identity(client, self._options["cluster_uid"])
            except Refusal as error:
                raise StoreUnreachable(str(error)) from error
            self._is_identified = True

    def _read_server_clock(self, client: Client) -> float:
        """Return the server's time. Raise StoreUnreachable where no answer had a Date: ours is no measure."""
        self._offset = client.clock_offset or self._offset
        if not self._offset:
            raise StoreUnreachable(
                f"API server {client.access.server}: its answers have no Date, by which a lease expires. "
                "Have the proxy before it pass that header on"
            )
        return time.time() + self._offset

    @property
    def _lease_path(self) -> str:
        return f"{self._leases}/{self._lease_name}"

    @property
    def _leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    @property
    def _config_maps(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps"

    @property
    def _lease_name(self) -> str:
        return make_object_name("lowtide-window", self._site)

    @property
    def _lease_title(self) -> str:
        return f"Lease {self._namespace}/{self._lease_name}"

    def _select(self, kind: str, journal: str | None = None) -> dict[str, str]:
        labels = {SITE_LABEL: make_hash(self._site), KIND_LABEL: kind}
        if journal is not None:
            labels[JOURNAL_LABEL] = make_hash(journal)
        return {"labelSelector": ",".join(f"{name}={value}" for name, value in labels.items())}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Take turns with other processes of this run; the server refuses what other runs write in between."""
        descriptor = os.open(self._folder / "lowtide_window.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with self._keep():
                yield
        finally:
            os.close(descriptor)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Keep one connection: that of the lock, where it is held."""
        if self._client is not None:
            yield
            return
        with self._keep():
            yield

    @contextmanager
    def _keep(self) -> Iterator[None]:
        self._forget()
        self._client = Client(self._access, run_id="window", deadline=Deadline(self.patience))
        try:
            yield
        finally:
            self._forget()

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
        self._first, self._has_read = None, False
        self._parts.clear()
        self._last.clear()

    def create(self) -> None:
        """Do nothing: objects are made when they are written, and the namespace is somebody else's."""

    def read_clock(self) -> float:
        """Return the server's time, as its answers have told it last, to the second."""
        if not self._offset:
            with self._ask() as client:
                self._get_lease(client)
                self._read_server_clock(client)
        return time.time() + self._offset

    # -- the lease ------------------------------------------------------------------------------------------------

    def _get_lease(self, client: Client) -> Json | None:
        try:
            return client.get(self._lease_path, obj=self._lease_title)
        except NotFound:
            return None

    def _read_record(self, lease: Json | None) -> LeaseRecord | None:
        if lease is None:
            return None
        text = (lease["metadata"].get("annotations") or {}).get(RECORD, "")
        return LeaseRecord.from_json(text, source=self.location)

    def read_lease(self) -> LeaseRecord | None:
        """Read the Lease."""
        with self._ask() as client:
            record = self._read_record(self._get_lease(client))
        if not self._has_read:
            self._first, self._has_read = record, True
        return record

    def read_last_renewal(self) -> float:
        """Return ``renewTime``."""
        with self._ask() as client:
            return _read_renewal(self._get_lease(client))

    def is_expired(self) -> bool:
        """Compare ``renewTime`` with the Date of the server's answer."""
        with self._ask() as client:
            renewed = _read_renewal(self._get_lease(client))
            return self._read_server_clock(client) >= renewed + self.ttl

    def acquire(self, owner: Owner, window_id: str, *, pipe: str | None = None) -> LeaseRecord:
        """Replace the Lease that was read, then write the token into the journals that are not settled."""
        with self._ask() as client:
            while True:
                lease = self._get_lease(client)
                held = self._read_record(lease)
                if self._has_read and _identify_record(held) != _identify_record(self._first):
                    raise Refusal(
                        obj=self.location,
                        problem=f"{held.owner.describe() if held else 'somebody'} has opened or closed a window there "
                        "just now",
                        next_step="Run this again",
                    )
                obstacle = find_obstacle(self, held, owner)
                if obstacle is not None:
                    raise obstacle
                # The time as well: of a store that was restored from a copy nobody knows the last token.
                now = int(self._read_server_clock(client))
                last = max(now - 1, held.token if held else 0, self._find_last_token(client))
                record = LeaseRecord(last + 1, owner, window_id, pipe=pipe)
                if self._write_lease(client, lease, record, is_new=True):
                    break
            self._first = record
            self._fence(client, record.token)
        return record

    def _find_last_token(self, client: Client) -> int:
        """Return the highest token on the journals, which may have outlived the Lease."""
        return max((_read_token(item) for item in self._list_parts(client)), default=0)

    def _list_parts(self, client: Client) -> Sequence[Json]:
        """Return the metadata of all journals of the site."""
        title = f"ConfigMaps of {self.location}"
        return client.list_metadata(self._config_maps, obj=title, params=self._select("journal"))

    def _write_lease(self, client: Client, lease: Json | None, record: LeaseRecord, *, is_new: bool = False) -> bool:
        """Write the Lease where it is as it was read; return whether it was. ``is_new``: it was acquired."""
        now = _format_time(self._read_server_clock(client))
        spec = {
            "holderIdentity": "" if record.released else record.owner.describe(),
            "leaseDurationSeconds": max(1, int(self.ttl)),
            "renewTime": now,
            "leaseTransitions": record.token,
            **({"acquireTime": now} if is_new else {}),
        }
        metadata: Json = {"annotations": {RECORD: json.dumps(record.as_dict())}}
        body: Json = {"metadata": metadata, "spec": spec}
        try:
            if lease is None:
                metadata |= {"name": self._lease_name, "labels": {SITE_LABEL: make_hash(self._site)}}
                body |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
                client.create(self._leases, body, obj=self._lease_title)
            else:
                metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
                client.patch(self._lease_path, body, obj=self._lease_title)
        except (Conflict, WriteUnknown) as error:
            self._pause(client, error)
            written = self._get_lease(client)
            return self._read_record(written) == record and (written or {})["spec"].get("renewTime") == now
        return True

    @staticmethod
    def _pause(client: Client, error: ApiError) -> None:
        """Wait before a write is tried again. Raise StoreUnreachable where that was tried for long enough."""
        if client.deadline.passed:
            raise StoreUnreachable(str(error)) from error
        client.deadline.pause(PAUSE)

    def _fence(self, client: Client, token: int) -> None:
        """Write the token into each journal that is not settled: what its owner before has read is not current then.

        Its last part is enough: another one is not begun without a change of that.
        """
        ends = {_read_annotation(item, JOURNAL): item for item in sorted(self._list_parts(client), key=_read_part)}
        for item in ends.values():
            last = _read_last(item)
            if last is not None and is_settled(last):
                continue
            with suppress(NotFound):  # removed meanwhile
                self._fence_part(client, item["metadata"]["name"], token)

    def _fence_part(self, client: Client, name: str, token: int) -> None:
        """Write the token, which may be written twice where an answer is lost: the Lease is held by now."""
        body = {"metadata": {"annotations": {TOKEN: str(token)}}}
        while True:
            try:
                client.patch(f"{self._config_maps}/{name}", body, obj=f"ConfigMap {self._namespace}/{name}")
                return
            except WriteUnknown as error:
                self._pause(client, error)

    def check(self, token: int) -> None:
        """Read the Lease."""
        held = self.read_lease()
        if held is None or held.token != token or held.released:
            raise explain_holder(self.location, token, held)

    def release(self, token: int) -> None:
        """Mark the Lease."""
        self._change_lease(token, released=True)

    def renew(self, token: int) -> None:
        """Write the server's time."""
        self._change_lease(token, released=False)

    def _change_lease(self, token: int, *, released: bool) -> None:
        with self._ask() as client:
            while True:
                lease = self._get_lease(client)
                held = self._read_record(lease)
                if held is None or held.token != token or held.released:
                    raise explain_holder(self.location, token, held)
                if self._write_lease(client, lease, replace(held, released=released)):
                    return

    # -- journals -------------------------------------------------------------------------------------------------

    def list_occurrences(self) -> list[str]:
        """List the metadata of ConfigMaps."""
        with self._ask() as client:
            items = self._list_parts(client)
        self._last = {}
        for item in sorted(items, key=_read_part):
            self._last[str(_read_annotation(item, JOURNAL))] = _read_last(item)
        return sorted(self._last)

    def make_name(self, window_id: str) -> str:
        """Return the occurrence itself: any text is a name."""
        return window_id

    def _read_parts(self, client: Client, name: str) -> list[Json]:
        if name not in self._parts:
            self._parts[name] = sorted(self._find_parts(client, name), key=_read_part)
        return self._parts[name]

    def _find_parts(self, client: Client, name: str) -> list[Json]:
        """Read those parts that this run does not know as they are now."""
        title, params = f"journal {name} of {self.location}", self._select("journal", name)
        listed = [item["metadata"] for item in client.list_metadata(self._config_maps, obj=title, params=params)]
        known = [part for part in map(self._copies.recall, listed) if part is not None]
        uids = {part["metadata"]["uid"] for part in known}
        unknown = [metadata["name"] for metadata in listed if metadata["uid"] not in uids]
        read: list[Json] | None = None
        if len(unknown) <= MANY_PARTS:
            with suppress(NotFound):  # removed meanwhile: then all are read
                read = [client.get(f"{self._config_maps}/{part}", obj=title) for part in unknown]
        if read is None:
            known, read = [], list(client.list(self._config_maps, obj=title, params=params).items)
        for part in read:
            if _read_annotation(part, CONTINUED):  # no event is added to it any more
                self._copies.remember(part)
        return known + read

    def _read_lines(self, client: Client, name: str) -> Lines:
        lines = [
            text
            for part in self._read_parts(client, name)
            for _number, text in sorted((int(key), text) for key, text in (part.get("data") or {}).items())
        ]
        return decode_lines("".join(f"{line}\n" for line in lines).encode(), source=f"{name} of {self.location}")

    def load(self, name: str) -> list[Event]:
        """Read all parts."""
        self._parts.pop(name, None)
        with self._ask() as client:
            return self._read_lines(client, name).events

    def read_last_event(self, name: str) -> Event | None:
        """Return what the listing has told; else read the whole journal."""
        if self._last.get(name) is not None:
            return self._last[name]
        with self._ask() as client:
            parts = self._read_parts(client, name)
        lines = sorted((int(key), text) for part in parts for key, text in (part.get("data") or {}).items())
        return decode_last_line(lines[-1][1].encode()) if lines else None

    def append(self, name: str, event: Event) -> Event:
        """Add one key to the last part, as it was read, or begin another one."""
        written: list[Event] = []
        with self._ask() as client:
            while True:
                lines = self._read_lines(client, name)
                for earlier in written:  # of a write whose answer was lost
                    if lines.events and lines.events[-1] == earlier:
                        return earlier
                number = len(lines.events) + 1
                # What two connections take for the server's time may differ by a second: a Date has no parts of it.
                last = lines.events[-1].at if lines.events else 0.0
                timed = replace(event, at=max(last, round(self._read_server_clock(client), 3)))
                line = encode_line(timed, number)
                written.append(timed)
                try:
                    self._write_line(client, name, number, line.decode().rstrip("\n"), event.token)
                except (Conflict, WriteUnknown) as error:
                    self._pause(client, error)
                    self._parts.pop(name, None)
                    self._read_parts(client, name)
                    self.check(event.token)  # after it was read, as in the first place
                    continue
                return timed

    def _write_line(self, client: Client, name: str, number: int, line: str, token: int) -> None:
        parts = self._read_parts(client, name)
        if parts and _read_token(parts[-1]) > token:
            raise explain_holder(self.location, token, self.read_lease())
        annotations = {TOKEN: str(token), LAST: line if len(line.encode()) <= LAST_BYTES else ""}
        key = f"{number:06d}"
        size = sum(len(text.encode()) for text in (parts[-1].get("data") or {}).values()) if parts else 0
        if not parts or size + len(line.encode()) > PART_BYTES:
            if parts:  # a create has no precondition of its own
                self._patch_part(client, name, {CONTINUED: str(len(parts)), LAST: None})
            object_name = make_object_name("lowtide-journal", f"{self._site}/{name}", len(parts))
            body = self._describe(object_name, "journal", name, {**annotations, PART: str(len(parts))})
            title = f"ConfigMap {self._namespace}/{object_name}"
            made = client.create(self._config_maps, {**body, "data": {key: line}}, obj=title)
            self._parts[name] = [*parts, made]
            if not parts:
                self._require_lease(client, made, token)
            return
        self._patch_part(client, name, annotations, {key: line})

    def _patch_part(
        self, client: Client, name: str, annotations: Mapping[str, str | None], data: Mapping[str, str] | None = None
    ) -> None:
        """Change the last part of a journal where it is as it was read."""
        metadata = self._parts[name][-1]["metadata"]
        own = {"resourceVersion": metadata["resourceVersion"], "annotations": dict(annotations)}
        body = {"metadata": own, **({} if data is None else {"data": dict(data)})}
        title = f"ConfigMap {self._namespace}/{metadata['name']}"
        self._parts[name][-1] = client.patch(f"{self._config_maps}/{metadata['name']}", body, obj=title)

    def _require_lease(self, client: Client, made: Json, token: int) -> None:
        """Take a journal back that was begun after the lease had passed on: nobody could have refused it."""
        try:
            self.check(token)
        except LeaseLost:
            self._delete(client, made["metadata"])
            raise

    def _describe(self, object_name: str, kind: str, journal: str, annotations: Mapping[str, str]) -> Json:
        labels = {SITE_LABEL: make_hash(self._site), KIND_LABEL: kind, JOURNAL_LABEL: make_hash(journal)}
        readable = {"lowtide.ops/site": self._site, JOURNAL: journal}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": object_name, "labels": labels, "annotations": {**readable, **annotations}},
        }

    # -- reports --------------------------------------------------------------------------------------------------

    def write_report(self, name: str, token: int, contents: dict[str, str]) -> str:
        """Write one ConfigMap with a key for each suffix, packed where it would be too large."""
        object_name = make_object_name("lowtide-report", f"{self._site}/{name}", token)
        body = self._describe(object_name, "report", name, {TOKEN: str(token)})
        if sum(len(text.encode()) for text in contents.values()) <= REPORT_BYTES:
            body["data"] = {f"report{suffix}": text for suffix, text in contents.items()}
        else:
            body["binaryData"] = {
                f"report{suffix}.gz": base64.b64encode(gzip.compress(text.encode())).decode()
                for suffix, text in contents.items()
            }
        path, title = f"{self._config_maps}/{object_name}", f"ConfigMap {self._namespace}/{object_name}"
        with self._ask() as client:
            made, is_own = client.create_named(self._config_maps, path, body, obj=title)
            if not is_own:
                client.patch(path, {key: body.get(key) for key in ("data", "binaryData")}, obj=title)
            return f"ConfigMap {made['metadata']['name']} in namespace {self._namespace} of {self._access.server}"

    def remove(self, names: Sequence[str]) -> None:
        """Delete the ConfigMaps: reports first, so that a journal that is left is removed by the next run."""
        with self._ask() as client:
            for name in names:
                for kind in ("report", "journal"):
                    title = f"{kind} {name} of {self.location}"
                    for item in client.list_metadata(self._config_maps, obj=title, params=self._select(kind, name)):
                        self._delete(client, item["metadata"])
                self._parts.pop(name, None)
                self._last.pop(name, None)

    def _delete(self, client: Client, metadata: Json) -> None:
        title = f"ConfigMap {self._namespace}/{metadata['name']}"
        try:
            client.delete(f"{self._config_maps}/{metadata['name']}", obj=title, uid=metadata["uid"])
        except (NotFound, Conflict):
            return  # gone, or another object by now: not what was to be removed


def make_hash(text: str) -> str:
    """Return what stands for any text in a label."""
    return sha256(text.encode()).hexdigest()[:16]


def make_object_name(prefix: str, text: str, number: int | None = None) -> str:
    """Return the name of an object: readable, and different for different texts."""
    readable = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80].strip("-")
    end = "" if number is None else f"-{number}"
    return "-".join(part for part in (prefix, readable, make_hash(text)[:10]) if part) + end


def _identify_record(held: LeaseRecord | None) -> tuple[int, bool] | None:
    return None if held is None else (held.token, held.released)


def _read_annotation(item: Json, name: str) -> str:
    return str((item["metadata"].get("annotations") or {}).get(name) or "")


def _read_part(item: Json) -> int:
    return int(_read_annotation(item, PART) or 0)


def _read_token(item: Json) -> int:
    return int(_read_annotation(item, TOKEN) or 0)


def _read_last(item: Json) -> Event | None:
    return decode_last_line(_read_annotation(item, LAST).encode())


def _read_renewal(lease: Json | None) -> float:
    text = ((lease or {}).get("spec") or {}).get("renewTime")
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
