# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stream the objects of a dump out of a bucket into pg_restore. Private to lowtide.ops: do not import from other collections.

Nothing is staged: each piece goes to ``zstd -d | pg_restore`` that restores, and to a second one whose text is read and
hashed. An object counts only with the size and SHA-256 that its manifest says.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import tempfile
import typing as t
from dataclasses import dataclass
from functools import partial

from .._backup import keys
from .._backup.pipeline import Command, Pipeline, find_program
from .._backup.streams import Streams
from .._backup.verify import NotVerified, compare_part
from .._common.errors import OpsError, Refusal
from .._pg_backup import programs
from .amcheck import leave_out_amcheck
from .dump_text import Data, DataReader, Schema, find_encoding, join_data, list_object_owners, read_schema

if t.TYPE_CHECKING:
    from .._backup.manifest import Part
    from .._common.retry import Deadline
    from .._s3.bucket import Bucket

TRANSACTION_TIMEOUT = 17
"""From this version on pg_restore sets ``transaction_timeout``, and servers know it."""
_ZSTD, _GZIP, _CUSTOM = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"PGDMP"
_NEXT = "It is not restored; find out what altered the object, or use another backup"


@dataclass(frozen=True)
class Dump:
    """The objects that pg_dump has written, by part; ``parts`` are what a manifest vouches for, None of a foreign dump."""

    bucket: Bucket
    objects: dict[str, str]
    parts: dict[str, Part] | None

    @property
    def main(self) -> str:
        """Return the part with the schema."""
        return keys.name_main(self.objects)

    @property
    def further(self) -> list[str]:
        """Return the parts with further rows."""
        return [name for name in self.objects if name != self.main]


@dataclass(frozen=True)
class Tools:
    """The programs, the environment that leads them to the server, and how much time they have."""

    programs: programs.Programs
    environment: dict[str, str]
    server_version: int
    deadline: Deadline


def find_decompressor(dump: Dump) -> str | None:
    """Return the program that unpacks a foreign dump, told by its first bytes; None where nothing is to be unpacked."""
    key = dump.objects[dump.main]
    with contextlib.closing(t.cast("t.Generator[bytes, None, None]", dump.bucket.stream(key))) as chunks:
        head = next(iter(chunks), b"")[:8]
    if head.startswith(_CUSTOM):
        return None
    for magic, name in ((_ZSTD, "zstd"), (_GZIP, "gzip")):
        if head.startswith(magic):
            return find_program(name, package=name)
    raise Refusal(
        obj=dump.bucket.url(key),
        problem="it is neither a dump of pg_dump -Fc nor one packed by zstd or gzip: a script of SQL would run whatever"
        " it says, and its errors would be passed over",
        next_step="Make the dump with lowtide.ops.pg_backup, or with pg_dump -Fc",
    )


class Restorer:
    """Restores one dump and reads what is in it."""

    def __init__(self, dump: Dump, tools: Tools, *, decompressor: str | None) -> None:
        self._dump = dump
        self._tools = tools
        self.leaves_out_amcheck = False
        self._unpack = [] if decompressor is None else [Command((decompressor, "-d", "-q", "-c"), next_step=_NEXT)]

    def read_schema(self) -> Schema:
        """Read the objects in a dump from its beginning, which is where they are; the rest stays where it is."""
        options = ("--create", "--section=pre-data", "--section=post-data", "-f", "-")
        with self._start([Command((self._tools.programs.pg_restore, *options), next_step=_NEXT)]) as pipeline:
            pieces: list[bytes] = []
            pipeline.consume(pieces.append)
            self._feed(self._dump.main, [pipeline], is_whole=False)
            self._finish(self._dump.main, pipeline, may_end_early=True)
        text = b"".join(pieces)
        encoding = find_python_encoding(find_encoding(text))
        schema = read_schema(text.decode(encoding, "backslashreplace"))
        return schema._replace(object_owners=list_object_owners(self._list().decode(encoding, "backslashreplace")))

    def _list(self) -> bytes:
        """Return the listing of the dump."""
        with self._start([Command((self._tools.programs.pg_restore, "-l"), next_step=_NEXT)]) as pipeline:
            pieces: list[bytes] = []
            pipeline.consume(pieces.append)
            self._feed(self._dump.main, [pipeline], is_whole=False)
            self._finish(self._dump.main, pipeline, may_end_early=True)
        return b"".join(pieces)

    def read_data(self) -> Data:
        """Read all rows, sequences and large objects of the dump, and compare its objects with the manifest."""
        return self._run([partial(self._read_part, part, None) for part in self._dump.objects])

    def restore(self, database: str) -> Data:
        """Restore all of it into a database and return what was in the dump."""
        with self._choose() as chosen:
            if not self._dump.further:
                return self._read_part(self._dump.main, self._command(database, *chosen))
            first = self._command(database, "--section=pre-data", "--section=data", *chosen)
            main = self._read_part(self._dump.main, first)
            rest = self._run(
                [partial(self._read_part, part, self._command(database, "--data-only")) for part in self._dump.further]
            )
            self._restore_part(self._dump.main, self._command(database, "--section=post-data", *chosen))
            return join_data([main, rest])

    @contextlib.contextmanager
    def _choose(self) -> t.Iterator[tuple[str, ...]]:
        """Return the options by which pg_restore takes from the dump's main object what is to be restored."""
        if not self.leaves_out_amcheck:
            yield ()
            return
        listing = leave_out_amcheck(self._list().decode("utf-8", "surrogateescape"))
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(listing)
            file.flush()
            yield ("-L", file.name)

    def restore_tables(self, database: str, tables: t.Mapping[str, t.Sequence[tuple[str, str]]]) -> None:
        """Restore all definitions, and the rows of ``tables``, given by the object that they are in; without indexes."""
        with self._choose() as chosen:
            definitions = self._command(database, "--section=pre-data", *chosen)
            self._restore_part(self._dump.main, definitions)
        for part, names in tables.items():
            for schema in sorted({schema for schema, _name in names}):
                wanted = [f"--table={name}" for own, name in names if own == schema]
                options = ("--data-only", f"--schema={schema}", *wanted)
                self._restore_part(part, self._command(database, *options))

    def _run(self, tasks: list[t.Callable[[Streams], Data]]) -> Data:
        streams = Streams()
        return join_data(streams.run([partial(task, streams) for task in tasks]))

    def _command(self, database: str, *options: str) -> list[Command]:
        """Return what restores: pg_restore on the database, or by its text where it is too new for the server."""
        own = self._tools
        target = f"--dbname={programs.quote_conninfo(database)}"
        step = "The database beside is not complete and is left; correct what the message says and run again"
        major = programs.read_major(own.programs.version) or 0
        if major < TRANSACTION_TIMEOUT or own.server_version >= TRANSACTION_TIMEOUT:
            argv = (own.programs.pg_restore, "--exit-on-error", "--no-password", *options, target)
            return [Command(argv, env=own.environment, next_step=step)]
        folder = os.path.dirname(own.programs.pg_restore)
        psql = find_program("psql", package="postgresql-client", directory=folder)
        return [
            Command((own.programs.pg_restore, *options, "-f", "-"), next_step=step),
            # The settings are in the first lines; further down it might be a row.
            Command((find_program("sed", package="sed"), "-e", "1,40{/^SET transaction_timeout = 0;$/d;}")),
            Command(
                # As a file: then the place is before each message.
                (psql, "-X", "-q", "--no-password", "-v", "ON_ERROR_STOP=1", "-f", "-", target),
                env=own.environment,
                next_step=step,
            ),
        ]

    @contextlib.contextmanager
    def _start(self, commands: list[Command], *, collect: bool = True) -> t.Iterator[Pipeline]:
        with Pipeline(
            [*self._unpack, *commands], deadline=self._tools.deadline, feed=True, collect=collect
        ) as pipeline:
            yield pipeline

    def _read_part(self, part: str, restoring: list[Command] | None, streams: Streams | None = None) -> Data:
        """Read one object once, for what is in it, and for ``restoring`` as well."""
        reader = DataReader()
        decoding = [Command((self._tools.programs.pg_restore, "--section=data", "-f", "-"), next_step=_NEXT)]
        with contextlib.ExitStack() as stack:
            decoder = stack.enter_context(self._start(decoding))
            decoder.consume(reader.feed)
            pipelines = [decoder]
            if restoring is not None:
                pipelines.append(stack.enter_context(self._start(restoring, collect=False)))
            for pipeline in pipelines:
                if streams is not None:
                    streams.attach(pipeline)
            self._feed(part, pipelines, is_whole=True, check=reader.check)
            for pipeline in reversed(pipelines):
                pipeline.finish()
        unfinished = reader.explain_end()
        if unfinished:
            raise NotVerified(obj=self._url(part), problem=f"its text is cut off: {unfinished}", next_step=_NEXT)
        return reader.read()

    def _restore_part(self, part: str, restoring: list[Command]) -> None:
        """Restore from an object what does not need all of it."""
        with self._start(restoring, collect=False) as pipeline:
            self._feed(part, [pipeline], is_whole=False)
            pipeline.finish(may_end_early=True)

    def _finish(self, part: str, pipeline: Pipeline, *, may_end_early: bool) -> None:
        try:
            pipeline.finish(may_end_early=may_end_early)
        except OpsError as error:
            if not error.next_step.startswith(_NEXT):
                raise
            raise NotVerified(
                obj=self._url(part), problem=f"it cannot be decoded: {error.obj} {error.problem}", next_step=_NEXT
            ) from error

    def _url(self, part: str) -> str:
        return self._dump.bucket.url(self._dump.objects[part])

    def _feed(
        self,
        part: str,
        pipelines: t.Sequence[Pipeline],
        *,
        is_whole: bool,
        check: t.Callable[[], None] = lambda: None,
    ) -> None:
        """Give an object to all of ``pipelines``, and compare it with the manifest where it was read whole.

        ``check`` raises where what has been read by then cannot be compared: not all of it is restored for that.
        """
        digest, size = hashlib.sha256(), 0
        stream = self._dump.bucket.stream(self._dump.objects[part])
        with contextlib.closing(t.cast("t.Generator[bytes, None, None]", stream)) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                check()
                try:
                    for pipeline in pipelines:
                        pipeline.check()
                        pipeline.stdin.write(chunk)
                except BrokenPipeError:
                    if not is_whole:
                        return
                    self._finish(part, pipeline, may_end_early=False)
                    raise NotVerified(
                        obj=self._url(part), problem="there is data behind the end of the dump", next_step=_NEXT
                    ) from None
        if is_whole and self._dump.parts is not None:
            compare_part(self._url(part), self._dump.parts[part], size=size, sha256=digest.hexdigest())


def dump_database(tools: Tools, database: str) -> tuple[Schema, Data]:
    """Read what is in a database in the way in which a dump tells it."""
    argv = (tools.programs.pg_dump, "--no-password")
    target = f"--dbname={programs.quote_conninfo(database)}"
    step = "Correct what the message says, and run again"
    reader, pieces = DataReader(), list[bytes]()
    for options, take in (
        (("--create", "--section=pre-data", "--section=post-data"), pieces.append),
        (("--section=data",), reader.feed),
    ):
        command = Command((*argv, *options, target), env=tools.environment, next_step=step)
        with Pipeline([command], deadline=tools.deadline, collect=True) as pipeline:
            pipeline.consume(take)
            pipeline.finish()
    text = b"".join(pieces)
    return read_schema(text.decode(find_python_encoding(find_encoding(text)), "backslashreplace")), reader.read()


def find_python_encoding(name: str) -> str:
    """Return Python's name of an encoding that PostgreSQL names; UTF-8 where it has none."""
    guess = name.lower().replace("latin", "latin_").replace("win", "cp")
    try:
        return codecs.lookup(guess).name
    except LookupError:
        return "utf-8"
