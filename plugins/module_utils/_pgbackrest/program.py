# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pgBackRest. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import os
import typing as t

from .._backup.pipeline import Command, find_program, run
from .._common.errors import OpsError, Refusal
from .repository import (
    NO_BACKUPS,
    OK,
    Stanza,
    Verification,
    list_archived,
    parse_bad_files,
    parse_info,
    parse_verification,
    parse_version,
)

if t.TYPE_CHECKING:
    from .._common.retry import Deadline

OLDEST = (2, 45)
"""What the collection is tested with; ``verify --output`` and ``annotate`` came shortly before."""


class PgBackRest:
    """pgBackRest on this host, for one stanza and one of its repositories."""

    def __init__(
        self, *, stanza: str, repository: int, config: str | None, bin_dir: str | None, deadline: Deadline
    ) -> None:
        self.stanza, self.repository, self._deadline = stanza, repository, deadline
        self._program = find_program("pgbackrest", package="pgbackrest", directory=bin_dir)
        self._options = [f"--stanza={stanza}", *([f"--config={config}"] if config else [])]

    def _run(self, *arguments: str, next_step: str, log: str = "off", files: tuple[int, ...] = ()) -> str:
        argv = (self._program, *self._options, f"--log-level-console={log}", "--log-level-stderr=warn", *arguments)
        environment = {**os.environ, "LC_ALL": "C"}
        command = Command(argv, env=environment, next_step=next_step, files=files)
        return run(command, deadline=self._deadline).decode("utf-8", "replace")

    def check_version(self) -> str:
        """Return the version; an older one than what is tested is refused."""
        output = run(Command((self._program, "version")), deadline=self._deadline).decode("utf-8", "replace").strip()
        version = parse_version(output)
        if version is None or version < OLDEST:
            raise Refusal(
                obj=self._program,
                problem=f"{output!r} is older than {'.'.join(map(str, OLDEST))}, or no version",
                next_step="Install a newer pgBackRest, on all hosts of the stanza together",
            )
        return ".".join(map(str, version))

    def read_stanza(self) -> Stanza:
        """Return what the repository holds."""
        output = self._run("info", "--output=json", next_step="Correct pgBackRest's configuration on this host")
        return parse_info(output, stanza=self.stanza, repository=self.repository)

    def read_usable(self) -> Stanza:
        """Return the stanza; one that pgBackRest itself cannot work with is refused."""
        stanza = self.read_stanza()
        if stanza.code not in {OK, NO_BACKUPS}:
            raise Refusal(
                obj=f"stanza {stanza.name} in repository {self.repository}",
                problem=f"pgBackRest says: {stanza.message}",
                next_step="Correct the name, or make it with `pgbackrest stanza-create` and `pgbackrest check`; where"
                " there was one, find out who removed it before anything else",
            )
        return stanza

    def back_up(self, kind: str) -> None:
        """Make a backup of this type, and expire none: nothing is known about the new one yet."""
        self._run(
            "backup",
            f"--type={kind}",
            "--no-expire-auto",
            f"--repo={self.repository}",
            next_step="Nothing counts as a backup; correct what the message says, and run again",
        )

    def expire(self) -> None:
        """Remove what pgBackRest's configured retention does not keep."""
        self._run(
            "expire",
            f"--repo={self.repository}",
            next_step="The newest backup is verified, and older ones are still there; run `pgbackrest expire`",
        )

    def list_bad_files(self, label: str) -> list[str]:
        """Return the files of a backup that have pages with an invalid checksum."""
        output = self._run(
            *("info", "--output=json", f"--set={label}", f"--repo={self.repository}"),
            next_step=f"Look at `pgbackrest info --set={label}`",
        )
        return parse_bad_files(output, label)

    def verify(self) -> Verification:
        """Have the whole repository read and compared with its checksums."""
        output = self._run(
            *("verify", "--output=text", "--verbose", f"--repo={self.repository}"),
            next_step="Nothing is proven about the backups; correct what the message says and run again",
            log="info",
        )
        verification = parse_verification(output)
        if verification is None:
            raise OpsError(
                obj=f"pgbackrest verify of stanza {self.stanza}",
                problem="its output does not say a status",
                next_step="Run `pgbackrest verify --output=text --verbose` as this user and look at it",
            )
        return verification

    def list_segments(self, archive_id: str, prefixes: t.Iterable[str]) -> set[str]:
        """Return the WAL segments in the archive whose names begin with one of the prefixes, of 16 digits."""
        archived: set[str] = set()
        for prefix in sorted(set(prefixes)):
            output = self._run(
                *("repo-ls", f"archive/{self.stanza}/{archive_id}/{prefix}"),
                *("--output=json", f"--repo={self.repository}"),
                next_step="Look whether this user may read the repository",
            )
            archived.update(list_archived(output))
        return archived

    def annotate(self, label: str, key: str, value: str) -> None:
        """Note something on a backup."""
        self._run(
            *("annotate", f"--set={label}", f"--annotation={key}={value}", f"--repo={self.repository}"),
            next_step=f"The backup {label} stands; run again to note what was proven about it",
        )

    def restore(self, label: str, *, data: str, tablespaces: str, lock: str, mark: int) -> None:
        """Restore a backup into an empty directory.

        What the configuration says of a restore in earnest does not count: no file is written elsewhere (tablespaces,
        links), nothing that is there is overwritten, a restore of the real server is not held up, and its queue of WAL
        stays: a restore removes the one below ``spool-path``. ``mark`` is a descriptor that pgBackRest inherits.
        """
        self._run(
            "restore",
            f"--set={label}",
            f"--repo={self.repository}",
            f"--pg1-path={data}",
            f"--lock-path={lock}",
            f"--spool-path={lock}",
            "--type=default",
            "--archive-mode=off",
            "--no-delta",
            "--no-link-all",
            "--reset-link-map",
            "--reset-tablespace-map",
            f"--tablespace-map-all={tablespaces}",
            "--reset-recovery-option",
            "--reset-db-include",
            "--reset-db-exclude",
            next_step="Look whether this user may read the repository, and have the backup verified"
            " (lowtide.ops.pgbackrest_backup)",
            files=(mark,),
        )

    def list_restore_command(self, *, data: str, lock: str) -> list[str]:
        """Return the arguments by which a restored server asks for WAL, past queues that a real server may use."""
        return [
            self._program,
            *self._options,
            f"--repo={self.repository}",
            f"--pg1-path={data}",
            f"--lock-path={lock}",
            "--no-archive-async",
            "--log-level-file=off",
            "--log-level-console=off",
            "--log-level-stderr=warn",
            "archive-get",
        ]
