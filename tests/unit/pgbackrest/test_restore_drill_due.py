# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pgbackrest_restore_drill decides before it restores, with a program that answers as pgBackRest does."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import stamp
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import evidence
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.drill_place import MARK, DrillPlace
from ansible_collections.lowtide.ops.plugins.module_utils._pgbackrest.operations.restore_drill import (
    ARGUMENT_SPEC,
    Drill,
)

NOW = datetime.now(UTC)
LOOKING: dict[str, Any] = dict.fromkeys(("directory", "database", "query")) | {"on_due": "fail"}


def make_backup(label: str, age: timedelta, **more: Any) -> dict[str, Any]:
    """A backup as ``info`` lists it."""
    ended = int((NOW - age).timestamp())
    return {
        "label": label,
        "type": "full",
        "timestamp": {"start": ended - 10, "stop": ended},
        "archive": {"start": None, "stop": None},
        "database": {"id": 1, "repo-key": 1},
        "info": {"size": 1, "repository": {"delta": 1}},
        **more,
    }


class Site:
    """A host with a repository that holds what the test says, and the key and evidence of a user who drills."""

    def __init__(self, place: Path) -> None:
        self.place, self.directory, self.evidence = place, place / "drill", place / "evidence"
        self.key = place / "drill.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key], check=True)
        self.key.chmod(0o600)
        self.signer = evidence.Signer(str(self.key))
        self.version = "15"
        self.backups = [make_backup("new", timedelta(hours=1))]
        self.warnings: list[str] = []
        self.outcome = Outcome()
        answer = 'if [ "$1" = version ]; then echo pgBackRest 2.45; else cat info; fi'
        (place / "pgbackrest").write_text(f"#!/bin/sh\ncd {place}\n{answer}\n")
        (place / "pgbackrest").chmod(0o755)

    def run(self, *, check: bool = False, **options: Any) -> Outcome:
        """One run; what it reports."""
        database = {"id": 1, "repo-key": 1, "version": self.version, "system-id": 7}
        status = {"code": 0, "message": "ok"}
        entry = {
            "name": "shop",
            "repo": [{"key": 1, "status": status}],
            "db": [database],
            "backup": self.backups,
            "status": {**status, "lock": {"backup": {"held": False}}},
        }
        (self.place / "info").write_text(json.dumps([entry]))
        params = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()} | {
            "stanza": "shop",
            "bin_dir": str(self.place),
            "server_bin_dir": str(self.place),
            "directory": str(self.directory),
            "database": "shop",
            "query": "SELECT true AS fine\n",
            "signing_key": str(self.key),
            "evidence_dir": str(self.evidence),
            **options,
        }
        self.outcome = Outcome()
        module: Any = SimpleNamespace(params=params, check_mode=check, warn=self.warnings.append)
        Drill(module, self.outcome).ensure()
        return self.outcome

    def prove(self, **values: Any) -> None:
        """Have evidence of a drill."""
        document = {
            "proven": True,
            "stanza": "shop",
            "repository": 1,
            "source_system_identifier": "7",
            "database": "shop",
            "query": "SELECT true AS fine",
            "target": "latest",
            "backup": "new",
            "backup_option": "latest",
            "finished_at": stamp(NOW),
            **values,
        }
        body = evidence.write_document(document)
        evidence.save_local(
            str(self.evidence), f"n{len(list(self.place.rglob('*.json')))}", body, self.signer.sign(body)
        )

    def leave(self, name: str = "drill-0123abcd") -> Path:
        """Have what a drill could not remove."""
        left = self.directory / name
        (left / "data").mkdir(parents=True)
        (left / "data/PG_VERSION").write_text("15\n")
        (self.directory / MARK).write_text(f"{name}\n")
        return left


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """In a folder with a short path, as that of a server's socket is to be, as the user of a server."""
    monkeypatch.setattr(os, "geteuid", lambda: 26)
    with tempfile.TemporaryDirectory(prefix="lowtide-") as place:
        yield Site(Path(place))


@pytest.mark.parametrize(
    ("proven", "asked", "counts"),
    [
        ({}, {}, True),
        ({}, {"target": "immediate"}, True),
        ({"target": "immediate"}, {"target": "immediate"}, True),
        ({"target": "immediate"}, {}, False),
        ({}, {"database": "billing"}, False),
        ({}, {"query": "SELECT count(*) > 7 AS fine FROM orders"}, False),
        ({"backup_option": "old", "backup": "old"}, {}, False),
        ({"backup_option": "old", "backup": "old"}, {"backup": "old"}, True),
        ({"stanza": "other"}, {}, False),
        ({}, LOOKING, True),
        ({}, {**LOOKING, "database": "billing"}, False),
        ({}, {**LOOKING, "query": "SELECT false AS other"}, False),
    ],
)
def test_evidence_of_another_question_does_not_count(
    site: Site, proven: dict[str, Any], asked: dict[str, Any], counts: bool
) -> None:
    """Of another database, query, backup, or of less WAL; whoever only looks need not say."""
    site.prove(**proven)
    if counts:
        assert not site.run(**asked).facts["due"]
        return
    # Where one is due the programs of the server are looked for, which are not here.
    with pytest.raises(OpsError):
        site.run(**asked)
    assert site.outcome.facts["due"]
    assert "there is no evidence of a proven drill with this target, backup" in site.outcome.facts["why"]


@pytest.mark.parametrize(("ahead", "counts"), [(timedelta(minutes=3), True), (timedelta(minutes=30), False)])
def test_clocks_may_differ_a_little(site: Site, ahead: timedelta, counts: bool) -> None:
    """Of a clock that was set back since, by NTP."""
    site.prove(finished_at=stamp(datetime.now(UTC) + ahead))
    if counts:
        assert not site.run(**LOOKING).facts["due"]
    else:
        with pytest.raises(OpsError, match="dated in the future"):
            site.run(**LOOKING)


def test_root_may_look_and_not_drill(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts no server is not refused for what a server refuses."""
    site.prove()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not site.run(**LOOKING).facts["due"]
    with pytest.raises(Refusal, match="PostgreSQL does not start as root"):
        site.run()


def test_a_server_that_cannot_be_asked_is_not_restored(site: Site) -> None:
    """Known before hours of a restore."""
    site.version = "13"
    with pytest.raises(Refusal, match=r"it is of PostgreSQL 13\. A drill takes 14 or newer"):
        site.run()


def test_newer_backups_that_do_not_count_are_named(site: Site) -> None:
    """Otherwise a drill is green of an older one for as long as each new one is damaged."""
    site.backups = [
        make_backup("old", timedelta(days=3), annotation={"lowtide-damaged": "T"}),
        make_backup("good", timedelta(days=2)),
        make_backup("bad", timedelta(days=1), error=True),
        make_backup("diff", timedelta(hours=3), reference=["bad"]),
        make_backup("new", timedelta(hours=2), annotation={"lowtide-damaged": "2026-11-27T00:00:00Z"}),
    ]
    with pytest.raises(Refusal, match="the programs of PostgreSQL 15"):
        site.run()
    facts = site.outcome.facts
    assert facts["backup"]["label"] == "good"
    assert {each["backup"]: each["problem"] for each in facts["passed_over"]} == {
        "bad": "it found pages with an invalid checksum in the database",
        "diff": "it builds on bad, which is damaged or gone",
        "new": "damage of it was found at 2026-11-27T00:00:00Z",
    }
    assert site.warnings[0].startswith("backup bad is newer than good and was passed over: it found pages")
    with pytest.raises(Refusal):
        site.run(backup="old")
    assert site.outcome.facts["passed_over"] == []


def test_what_a_drill_has_left_is_removed_also_where_none_is_due(site: Site) -> None:
    """It is all of the data, on the file system of production, and the next drill may be a week away."""
    site.prove()
    assert site.run().plan == []
    left = site.leave()
    assert site.run(on_due="fail", check=True).plan == []
    predicted = site.run(check=True)
    assert (predicted.changed, predicted.facts["removed"], left.exists()) == (True, [], True)
    assert f"would remove {left}" in predicted.summary
    done = site.run()
    assert (done.changed, done.facts["removed"], done.plan) == (True, [str(left)], predicted.plan)
    assert list(site.directory.iterdir()) == []
    assert not site.run().changed

    place = DrillPlace(str(site.directory))
    place.open(Deadline(10))
    beside = site.run()
    assert (beside.changed, place.data.is_dir()) == (False, True), "that of a drill that is running is its own"
    place.close()


def test_what_cannot_be_removed_goes_on_being_a_drill_s(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried: the mark is all that says whose it is."""
    left = site.leave()
    with monkeypatch.context() as patch:

        def rmtree(folder: Path) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        patch.setattr("shutil.rmtree", rmtree)
        for _time in range(2):
            place = DrillPlace(str(site.directory))
            with pytest.raises(OpsError, match=r"cannot be removed: Permission denied .*the next run tries again"):
                place.open(Deadline(10))
            place.close()
            assert (site.directory / MARK).read_text() == f"{left.name}\n"
        site.prove()
        with pytest.raises(OpsError, match="cannot be removed"):
            site.run()
    assert site.run().facts["removed"] == [str(left)]
    assert list(site.directory.iterdir()) == []
