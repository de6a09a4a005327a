# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Grant what docs/postgresql-rights.sql says, by executing it, or all of it but one grant."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from labkit.postgresql_accounts import RIGHTS, make_grant_arguments

GRANT = re.compile(r"^ *(?:GRANT |SELECT format\('(?:GRANT|ALTER) ).*?(?:;|\\gexec)$", re.MULTILINE | re.DOTALL)
"""A statement that gives a right; what makes accounts begins otherwise."""
PSQL = Path("/usr/lib/postgresql/15/bin/psql")
"""Debian's, which the lab installs: older than the newest server, as a user's may be."""


class Superuser(NamedTuple):
    """Who executes it, where."""

    host: str
    port: int
    user: str
    passfile: str = ""
    password: str = ""

    def environment(self) -> dict[str, str]:
        """Return the variables of libpq."""
        proof = {"PGPASSFILE": self.passfile} if self.passfile else {"PGPASSWORD": self.password}
        return {**os.environ, "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, **proof}


def grant_documented_rights(superuser: Superuser, database: str, **names: str) -> str:
    """Execute the file in a database, for the accounts by these ``names``; return what it warns of."""
    return _run(superuser, database, make_grant_arguments(**names))


def find_grants(text: str) -> list[str]:
    """Find the statements of the file that give a right."""
    return [match[0] for match in GRANT.finditer(text)]


def grant_all_but(superuser: Superuser, database: str, folder: Path, left_out: str, **names: str) -> None:
    """Execute the file without one of its statements."""
    text = RIGHTS.read_text(encoding="utf-8")
    path = folder / RIGHTS.name
    path.write_text(text.replace(left_out, "", 1), encoding="utf-8")
    _run(superuser, database, [path if part == RIGHTS else part for part in make_grant_arguments(**names)])


def _run(superuser: Superuser, database: str, arguments: list[str | Path]) -> str:
    command = [str(part) for part in (PSQL, "-d", database, *arguments)]
    done = subprocess.run(
        command, env=superuser.environment(), check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
