# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a backup is due, which one counts, and what may be removed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._backup import catalogue, keys
from ansible_collections.lowtide.ops.plugins.module_utils._backup.manifest import (
    Identity,
    Manifest,
    NotAManifest,
    Part,
    is_taken_from,
    name_host,
    name_members,
    name_server,
    read_manifest,
    read_timeout,
    write_started,
)
from ansible_collections.lowtide.ops.plugins.module_utils._backup.plan import (
    SKEW,
    Retention,
    decide,
    explain_clock,
    explain_old_data,
    explain_old_result,
    part_size,
    readable_age,
    refuse_large_parts,
)
from ansible_collections.lowtide.ops.plugins.module_utils._backup.summary import report_backup
from ansible_collections.lowtide.ops.plugins.module_utils._common.amounts import parse_age
from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError, Refusal
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.entry import check_ages, choose_newest
from ansible_collections.lowtide.ops.plugins.module_utils._pg_backup.making import choose_warnings
from ansible_collections.lowtide.ops.plugins.module_utils._s3.bucket import Listed
from ansible_collections.lowtide.ops.plugins.module_utils._s3.errors import S3Error

NOW = datetime(2026, 11, 21, 4, 0, 0, tzinfo=UTC)
RUN = "20261121T020000Z-5f1c2a77"
SYSTEM = "7462919812386541234"
MANIFEST = Manifest(
    run_id=RUN,
    database="d/b",
    system_identifier=SYSTEM,
    server_version="15.18",
    client_version="15.18",
    hosts=("db1:5432", "10.0.0.1:5432"),
    timeline=3,
    source="primary",
    taken_at=datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC),
    finished_at=datetime(2026, 11, 21, 2, 0, 4, tzinfo=UTC),
    verified_at=datetime(2026, 11, 21, 2, 0, 4, tzinfo=UTC),
    dump_seconds=3.5,
    verify_seconds=0.5,
    tables=2,
    rows=10,
    role_passwords=False,
    encryption=None,
    parts={name: Part(size=10 + index, sha256="0" * 64, etag=f"e{index}") for index, name in enumerate(keys.PARTS)},
)
PLACE = keys.Place(bucket="b", prefix="p", database="d/b", system_identifier=SYSTEM)


HOUR = timedelta(hours=1)
OURS = Identity(("db1:5432",), 3)


def listing(run: str = RUN, *, parts: tuple[str, ...] = keys.ORDER) -> list[Listed]:
    """What a server lists for one run."""
    listed = []
    for name in parts:
        size, etag = (MANIFEST.parts[name].size, MANIFEST.parts[name].etag) if name in MANIFEST.parts else (1, "m")
        listed.append(Listed(key=PLACE.key(run, name), size=size, etag=etag, modified=NOW))
    return listed


def test_a_manifest_is_read_as_it_was_written() -> None:
    """To the last field. One that was written before there were warnings has none, and no time zone."""
    warned = replace(MANIFEST, warnings=("pg_dump: warning: x",), time_zone="UTC")
    assert read_manifest(warned.to_json()) == warned
    earlier = {
        name: value for name, value in json.loads(MANIFEST.to_json()).items() if name not in ("warnings", "time_zone")
    }
    assert read_manifest(json.dumps(earlier).encode()) == MANIFEST


def test_warnings_that_say_nothing_new_are_left_out() -> None:
    """What does not matter to a restore that makes foreign keys last, and what is named by name before."""
    said = [
        "pg_dump: warning: there are circular foreign-key constraints on this table:",
        "pg_dump: warning: subscriptions not dumped because current user is not a superuser",
        "pg_dump: warning: something else",
    ]
    assert choose_warnings(said) == said[2:]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_other_bytes_are_no_manifest(body: bytes) -> None:
    """And no other error."""
    with pytest.raises(NotAManifest):
        read_manifest(body)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(json.loads(MANIFEST.to_json()))),
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
)
def test_a_field_of_another_kind_never_passes_as_an_error_of_ours(field: str, value: object) -> None:
    """Read it is, or NotAManifest says why not."""
    document = json.loads(MANIFEST.to_json()) | {field: value}
    run_id = RUN
    with contextlib.suppress(NotAManifest):
        run_id = read_manifest(json.dumps(document).encode()).run_id
    assert keys.is_run_id(run_id)


@pytest.mark.parametrize("main", [keys.MAIN, keys.DUMP])
def test_a_dump_in_several_objects_has_a_format_of_its_own(main: str) -> None:
    """A release that knows of one object only names the version, instead of taking it for the whole; one is as before.

    The main one has another name than a whole dump; of those that were made before it had, each still counts.
    """
    part = Part(size=9, sha256="1" * 64, etag="x")
    small = {name: MANIFEST.parts[name] for name in (keys.GLOBALS, keys.TABLES)}
    several = replace(MANIFEST, parts={main: part, **small, "data-1.pgc.zst": part, "data-2.pgc.zst": part})
    assert read_manifest(several.to_json()) == several
    assert several.dumps == [main, "data-1.pgc.zst", "data-2.pgc.zst"]
    reported = report_backup(several, NOW, PLACE)
    assert (reported["sha256"], reported["location"]) == ("1" * 64, f"s3://b/p/d%2Fb/{SYSTEM}/{RUN}/")
    assert json.loads(several.to_json())["format_version"] == 2
    assert json.loads(MANIFEST.to_json())["format_version"] == 1
    gap = replace(several, parts={name: part for name in several.parts if name != "data-1.pgc.zst"})
    with pytest.raises(NotAManifest, match=r"data-2\.pgc\.zst"):
        read_manifest(gap.to_json())
    # Each of them has to be there, as it was.
    listed = [Listed(key=PLACE.key(RUN, name), size=9, etag="x", modified=NOW) for name in several.dumps[1:]]
    beside = listing(parts=(keys.STARTED, keys.GLOBALS, keys.TABLES, keys.MANIFEST))
    beside.append(Listed(key=PLACE.key(RUN, main), size=9, etag="x", modified=NOW))
    (run,) = catalogue.group([*beside, *listed], "p")
    assert catalogue.judge(run, several.to_json()).verified
    (run,) = catalogue.group([*beside, listed[0]], "p")
    assert catalogue.judge(run, several.to_json()).problem == "data-2.pgc.zst is missing"
    (run,) = catalogue.group([*beside, listed[0], replace(listed[1], etag="y")], "p")
    assert "data-2.pgc.zst has been replaced" in str(catalogue.judge(run, several.to_json()).problem)


def test_a_later_format_is_named() -> None:
    """So that nobody takes it for damage."""
    document = json.loads(MANIFEST.to_json()) | {"format_version": 3}
    with pytest.raises(NotAManifest, match="format_version is 3; this release reads 1 and 2"):
        read_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("age", "allowed", "interval", "due"),
    [
        (timedelta(0), timedelta(0), timedelta(0), False),
        (timedelta(seconds=1), timedelta(0), timedelta(0), True),
        # A nightly run makes one each night, though the last one is some minutes younger than a day.
        (timedelta(hours=23, minutes=55), 24 * HOUR, 24 * HOUR, True),
        # A second run in the same night does not.
        (timedelta(hours=1), 24 * HOUR, 24 * HOUR, False),
        (timedelta(hours=1, minutes=59), 24 * HOUR, 24 * HOUR, False),
        # One that was made up for in the afternoon leaves the next night its own.
        (timedelta(hours=11, minutes=30), 24 * HOUR, 24 * HOUR, True),
        (timedelta(hours=25), 24 * HOUR, 24 * HOUR, True),
        # Hourly runs make one each day, and nightly ones one before the week is over.
        (timedelta(hours=23), 24 * HOUR, HOUR, False),
        (timedelta(hours=23, minutes=1), 24 * HOUR, HOUR, True),
        (timedelta(days=5, hours=23), timedelta(days=7), 24 * HOUR, False),
        (timedelta(days=6, minutes=1), timedelta(days=7), 24 * HOUR, True),
        (-SKEW, HOUR, HOUR, False),
    ],
)
def test_due_by_age(age: timedelta, allowed: timedelta, interval: timedelta, due: bool) -> None:
    """From the snapshot on, and by what it will be when the next run comes."""
    decision = decide(newest=replace(MANIFEST, taken_at=NOW - age), now=NOW, max_age=allowed, interval=interval)
    assert decision.due is due
    assert RUN in decision.why


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 96), st.lists(st.integers(-30, 30), min_size=20, max_size=20))
def test_no_backup_is_older_than_allowed_at_any_run(allowed: int, interval: int, jitter: list[int]) -> None:
    """Runs at regular times, some minutes early or late: where a run can prevent it, none finds one that is too old."""
    taken, oldest = NOW, timedelta(0)
    for number, minutes in enumerate(jitter, start=1):
        now = NOW + number * interval * HOUR + timedelta(minutes=minutes if interval > 1 else 0)
        oldest = max(oldest, now - taken)
        manifest = replace(MANIFEST, taken_at=taken)
        if decide(newest=manifest, now=now, max_age=allowed * HOUR, interval=interval * HOUR).due:
            taken = now
    assert oldest <= max(allowed, interval) * HOUR + HOUR


@pytest.mark.parametrize(
    ("age", "last", "allowed", "words"),
    [
        # Paused for the dump, or some seconds behind: a backup as of then.
        (timedelta(seconds=9), None, 24 * HOUR, None),
        (timedelta(seconds=9), 24 * HOUR, 24 * HOUR, None),
        (timedelta(days=9), None, timedelta(0), None),
        # It would be due again at once.
        (timedelta(hours=25), None, 24 * HOUR, "1 d 1 h ago, allowed are 1 d"),
        (timedelta(hours=25), 26 * HOUR, 24 * HOUR, "allowed are 1 d"),
        # And retention would take the better one.
        (timedelta(hours=2), HOUR, timedelta(0), f"the verified backup {RUN} is no older"),
        (HOUR, HOUR, timedelta(0), "is no older"),
    ],
)
def test_data_of_a_standby_that_lags(
    age: timedelta, last: timedelta | None, allowed: timedelta, words: str | None
) -> None:
    """It has to be newer than the last backup, and younger than what is allowed."""
    newest = None if last is None else replace(MANIFEST, taken_at=NOW - last)
    problem = explain_old_data(moment=NOW - age, newest=newest, now=NOW, max_age=allowed)
    assert problem is None if words is None else words in str(problem)


def test_due_without_any() -> None:
    """And nothing else to say."""
    assert decide(newest=None, now=NOW, max_age=HOUR, interval=HOUR).due


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("3600", 3600), ("90m", 5400), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("5s", 5)],
)
def test_ages(text: str, seconds: int) -> None:
    """Whole numbers with a unit."""
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 day", "24H ", "nan", "9" * 30])
def test_no_ages(text: str) -> None:
    """Refused, with the option's name."""
    with pytest.raises(Refusal, match="option max_age"):
        parse_age(text)


def test_age_is_readable() -> None:
    """Two units."""
    assert readable_age(timedelta(days=1, hours=2, minutes=3)) == "1 d 2 h"
    assert readable_age(timedelta(0)) == "0 s"


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=4 << 40), st.sampled_from([1, 1_000, 10_000]))
def test_parts_are_few_enough(size: int, limit: int) -> None:
    """Within the server's limit of parts of at least 5 MiB, even at twice the database's size."""
    part = part_size(size, max_parts=limit)
    assert part >= 16 << 20
    assert -(-2 * size // part) <= limit


def test_parts_that_are_too_large_are_refused_before() -> None:
    """S3 takes 5 GiB; with as many parts as it allows that is 24 TiB, with a tenth of them 2.4 TiB."""
    refuse_large_parts(2 << 40, max_parts=1000)
    refuse_large_parts(20 << 40, max_parts=10_000)
    with pytest.raises(Refusal, match=r"3\.0 TiB in one upload of 1000 parts would make each 6\.1 GiB") as caught:
        refuse_large_parts(3 << 40, max_parts=1000)
    assert "max_parts" in caught.value.next_step


def test_a_manifest_is_read_once() -> None:
    """As long as it is the same object; a run looks at all of them before and under its lock."""
    reads: list[str] = []

    class Bucket:
        def read(self, key: str) -> bytes:
            reads.append(key)
            return b"{}"

    manifests = catalogue.Manifests(Bucket())  # type: ignore[arg-type]
    listed = Listed(key="k", size=2, etag="a", modified=NOW)
    for entry in (listed, listed, replace(listed, etag="b"), listed):
        assert manifests.read(entry) == b"{}"
    assert reads == ["k", "k"]


def test_a_whole_run_counts() -> None:
    """Manifest readable, objects as listed then."""
    (run,) = catalogue.group(listing(), "p")
    assert catalogue.judge(run, MANIFEST.to_json()).verified


@pytest.mark.parametrize("part", keys.PARTS)
def test_a_run_with_a_missing_or_other_object_does_not_count(part: str) -> None:
    """The problem names the object."""
    for change in ({"size": 1}, {"etag": "other"}, None):
        objects = [
            replace(one, **change) if change and one.key.endswith(part) else one
            for one in listing()
            if change or not one.key.endswith(part)
        ]
        (run,) = catalogue.group(objects, "p")
        judged = catalogue.judge(run, MANIFEST.to_json())
        assert not judged.verified
        assert part in (judged.problem or "")


def test_an_object_of_the_same_size_and_another_etag_may_be_the_one_that_was_verified() -> None:
    """A bucket that was copied elsewhere: by itself it does not count, and a full verification decides by SHA-256."""
    moved = [replace(entry, etag=f"other-{entry.etag}") for entry in listing()]
    (run,) = catalogue.group(moved, "p")
    judged = catalogue.judge(run, MANIFEST.to_json())
    assert not judged.verified
    assert judged.is_moved
    assert "ETag other-e0, was e0" in str(judged.problem)
    assert "verify: full" in str(judged.problem)
    (other_size,) = catalogue.group([replace(entry, size=1) for entry in moved], "p")
    assert not catalogue.judge(other_size, MANIFEST.to_json()).is_moved
    # Of two databases' runs, newest first: one that counts, or that may be proven to.
    older, newest = runs_of(MANIFEST)[0], runs_of(newer(1))[0]
    entries = [
        catalogue.Examined(newest, newer(1), "its ETag differs", is_moved=True),
        catalogue.Examined(older, MANIFEST, None),
    ]
    assert choose_newest(entries, latest=NOW, with_moved=False) == [entries[1]]
    assert choose_newest(entries, latest=NOW, with_moved=True) == [entries[0]]
    assert choose_newest(entries, latest=MANIFEST.taken_at, with_moved=True) == [entries[1]]


def test_a_manifest_of_another_run_does_not_count() -> None:
    """Copied by hand from elsewhere."""
    (run,) = catalogue.group(listing("20261121T030000Z-00000000"), "p")
    assert not catalogue.judge(run, MANIFEST.to_json()).verified


def test_unfinished_is_what_was_begun_and_never_decoded() -> None:
    """A dump that has only lost its manifest is not: somebody may still want it. Nor is one that nobody began."""
    for parts, unfinished in (
        ((keys.STARTED,), True),
        ((keys.STARTED, keys.GLOBALS, keys.DUMP), True),
        ((keys.STARTED, *keys.PARTS), False),
        (keys.ORDER, False),
        ((keys.DUMP,), False),
    ):
        (run,) = catalogue.group(listing(parts=parts), "p")
        assert run.is_unfinished is unfinished


def test_a_run_says_how_long_it_may_take() -> None:
    """And whatever else lies there does not."""
    body = write_started(run_id=RUN, started_at=NOW, timeout=60, host="h")
    assert read_timeout(body) == 60
    for other in (b"", b"[]", b"{}", b'{"timeout": "60"}', b'{"timeout": 0}'):
        assert read_timeout(other) is None


class Manifests:
    """The one thing that a bucket is asked for: manifests, by their keys."""

    def __init__(self, *manifests: Manifest) -> None:
        self.bodies = {PLACE.key(manifest.run_id, keys.MANIFEST): manifest.to_json() for manifest in manifests}
        self.denied: set[str] = set()

    def read(self, key: str) -> bytes:
        """A manifest."""
        if key in self.denied:
            raise S3Error(obj=key, problem="access denied", next_step="x", code="AccessDenied")
        return self.bodies[key]


def runs_of(*manifests: Manifest) -> list[catalogue.Run]:
    """Their listing."""
    return catalogue.group([listed for manifest in manifests for listed in listing(manifest.run_id)], "p")


def newer(number: int, **changes: object) -> Manifest:
    """A backup that was taken so many hours later."""
    return replace(
        MANIFEST,
        run_id=f"20261121T{2 + number:02}0000Z-00000000",
        taken_at=MANIFEST.taken_at + number * HOUR,
        **changes,  # type: ignore[arg-type]
    )


def find(bucket: Manifests, *manifests: Manifest) -> catalogue.Findings:
    """Look for the newest one of ours."""
    held = catalogue.Manifests(bucket)  # type: ignore[arg-type]
    return catalogue.find_newest(held, runs_of(*manifests), OURS, latest=NOW + SKEW)


def test_the_backup_of_a_copy_of_the_cluster_does_not_vouch() -> None:
    """Taken elsewhere, or on a later timeline; the older one of ours does."""
    staging = newer(1, hosts=("staging:5432",))
    branch = newer(2, timeline=4)
    findings = find(Manifests(MANIFEST, staging, branch), MANIFEST, staging, branch)
    assert findings.newest == MANIFEST
    assert [entry.problem for entry in findings.foreign] == [
        "it is of timeline 4, and this server is on timeline 3",
        "it was taken from staging:5432, and this server is db1:5432",
    ]
    assert findings.bad == []
    # A member of ours that was the primary on an earlier timeline does.
    members = Identity(("db2:5432", "db1:5432"), 5)
    assert members.explain_foreign(MANIFEST) is None


def test_the_machine_itself_is_named_by_its_name() -> None:
    """localhost is another server on each machine."""
    for host in (None, "", "localhost", "127.0.0.1", "::1", "/var/run/postgresql"):
        assert name_host(host, 5432, node="n1") == "n1:5432"
    assert name_host("db1", 5433, node="n1") == "db1:5433"


@pytest.mark.parametrize(
    ("host", "address", "names"),
    [
        ("db1", "10.0.0.1", ("db1:6543", "10.0.0.1:6543")),
        ("10.0.0.1", "10.0.0.1", ("10.0.0.1:6543",)),
        ("/run/postgresql", None, ("n1:6543",)),
        ("localhost", "127.0.0.1", ("n1:6543",)),
        # A tunnel, or the published port of a container: the address means something by this way only.
        ("localhost", "172.17.0.2", ("172.17.0.2:5432 via n1:6543",)),
        ("::1", "fd00::2", ("fd00::2:5432 via n1:6543",)),
    ],
)
def test_a_name_of_the_machine_itself_is_none_of_a_server_elsewhere(
    host: str, address: str | None, names: tuple[str, ...]
) -> None:
    """Production and its clone are both localhost at the end of a tunnel."""
    assert name_server(host, 6543, address=address, server_port=5432, node="n1") == names
    listed = name_members([host, "db2"], 6543, address=address, reached=names, node="n1")
    assert set(listed) == {"db2:6543", *names}
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        (None, ("pg:5432", "172.17.0.2:5432")),
        ("172.17.0.2", ("pg:5432", "172.17.0.2:5432")),
        ("192.0.2.7", ("pg:5432", "172.17.0.2:5432 via pg:5432")),
    ],
)
def test_an_address_that_the_connection_does_not_go_to_is_none(peer: str | None, names: tuple[str, ...]) -> None:
    """Containers on two machines have the same private one; together with the name that leads to it, it still tells."""
    assert name_server("pg", 5432, address="172.17.0.2", server_port=5432, node="n1", peer=peer) == names


def test_two_containers_with_one_private_address_are_two_servers() -> None:
    """Neither vouches for the other, whichever name they were reached by; the same one by its name does."""

    def name(host: str, address: str) -> tuple[str, ...]:
        return name_server(host, 5432, address=address, server_port=5432, node="n1", peer="192.0.2.7")

    made = replace(MANIFEST, hosts=name("clone", "172.17.0.2"))
    production = Identity(name("db", "172.17.0.2"), 3, reached=name("db", "172.17.0.2"))
    assert "it was taken from clone:5432" in str(production.explain_foreign(made))
    own = Identity(name("clone", "172.17.0.2"), 3, reached=name("clone", "172.17.0.2"))
    assert own.explain_foreign(made) is None
    moved = Identity(name("clone", "172.17.0.3"), 3, reached=name("clone", "172.17.0.3"))
    assert "one name, another address" in str(moved.explain_foreign(made))


def test_a_name_that_leads_to_another_address_proves_nothing() -> None:
    """A service name has been given to the clone; one that was listed for each member does prove it."""
    production = replace(MANIFEST, hosts=("pg:5432", "10.0.0.1:5432"))
    clone = Identity(("pg:5432", "10.0.0.2:5432"), 4, reached=("pg:5432", "10.0.0.2:5432"))
    assert clone.explain_foreign(production) == (
        "it was taken from pg:5432 = 10.0.0.1:5432, and this server is pg:5432 = 10.0.0.2:5432: one name, another address"
    )
    same = Identity(("pg:5432", "10.0.0.1:5432"), 4, reached=("pg:5432", "10.0.0.1:5432"))
    assert same.explain_foreign(production) is None
    renamed = Identity(("primary:5432", "10.0.0.1:5432"), 4, reached=("primary:5432", "10.0.0.1:5432"))
    assert renamed.explain_foreign(production) is None
    # After a switchover, with every member named.
    members = Identity(("db1:5432", "db2:5432", "10.0.0.2:5432"), 4, reached=("db2:5432", "10.0.0.2:5432"))
    assert members.explain_foreign(replace(MANIFEST, hosts=("db1:5432", "10.0.0.1:5432"))) is None
    addresses = Identity(("10.0.0.1:5432", "10.0.0.2:5432"), 4, reached=("10.0.0.2:5432",))
    assert addresses.explain_foreign(replace(MANIFEST, hosts=("10.0.0.1:5432",))) is None


@pytest.mark.parametrize(
    ("hosts", "given", "is_theirs"),
    [
        (("db1:5432", "10.0.0.1:5432"), ["db1:5432"], True),
        (("db1:5432", "10.0.0.1:5432"), ["db2:5432", "10.0.0.1:5432"], True),
        (("db1:5432", "10.0.0.1:5432"), ["staging:5432"], False),
        (("db1:5432",), ["db1:5433"], False),
        (("n1:5432",), ["localhost:5432"], True),
        (("n1:5432",), ["/run/postgresql:5432"], True),
        (("172.17.0.2:5432 via n1:6543",), ["127.0.0.1:6543"], True),
        (("172.17.0.2:5432 via n2:6543",), ["127.0.0.1:6543"], False),
        (("172.17.0.2:5432 via n1:6543",), ["172.17.0.2:5432 via n1:6543"], True),
    ],
)
def test_whose_backup_one_is(hosts: tuple[str, ...], given: list[str], is_theirs: bool) -> None:
    """As a user names a server, whose own machine has another name in the manifest."""
    assert is_taken_from(hosts, given, node="n1") is is_theirs


def test_one_that_is_dated_in_the_future_is_passed_over() -> None:
    """It is named, and does not make every run due for ever."""
    future = newer(9)
    findings = find(Manifests(MANIFEST, future), MANIFEST, future)
    assert findings.newest == MANIFEST
    assert [entry.problem for entry in findings.bad] == ["it is dated in the future"]


def test_a_manifest_that_cannot_be_read_is_one_bad_run() -> None:
    """The others count. Another error than that of the object is none of this run's."""
    newest = newer(1)
    bucket = Manifests(MANIFEST, newest)
    bucket.denied = {PLACE.key(newest.run_id, keys.MANIFEST)}
    findings = find(bucket, MANIFEST, newest)
    assert findings.newest == MANIFEST
    assert [entry.problem for entry in findings.bad] == ["its manifest cannot be read: access denied"]


@pytest.mark.parametrize(
    ("keep", "keep_for", "gone"),
    [
        (None, None, []),
        (1, None, [0, 1, 2, 3]),
        (2, None, [0, 1, 2]),
        (9, None, []),
        (None, 2 * HOUR, [0, 1]),
        (3, 2 * HOUR, [0, 1]),
        (4, 2 * HOUR, [0]),
        (1, timedelta(0), [0, 1, 2, 3]),
    ],
)
@pytest.mark.procedure("D25")
def test_retention_counts_the_new_one_and_keeps_by_number_and_by_age(
    keep: int | None, keep_for: timedelta | None, gone: list[int]
) -> None:
    """Four older ones, of 4, 3, 2 and 1 hours; where both are given, one has to be beyond both."""
    older = [newer(number) for number in range(4)]
    now = MANIFEST.taken_at + 4 * HOUR
    chosen = Retention(keep, keep_for).choose(older, now=now, taken_at=now)
    assert chosen == [older[number] for number in gone]


@pytest.mark.parametrize("keep", [1, 2])
def test_retention_removes_nothing_that_is_dated_after_the_new_one(keep: int) -> None:
    """A standby that lags makes a backup of old data; what was taken of the primary since then stays, and does not count."""
    verified = [newer(number) for number in range(4)]
    for number in range(4):
        chosen = Retention(keep, None).choose(verified, now=NOW, taken_at=verified[number].taken_at - HOUR / 2)
        assert chosen == verified[: max(0, number - keep + 1)]


def test_a_result_that_is_too_old_at_once_removes_nothing() -> None:
    """Judged again after the dump; where each run makes one, no age is too much."""
    made = replace(MANIFEST, taken_at=NOW - 72 * HOUR)
    words = explain_old_result(made=made, now=NOW, max_age=24 * HOUR)
    assert RUN in str(words)
    assert "3 d" in str(words)
    assert "allowed are 1 d" in str(words)
    assert explain_old_result(made=made, now=NOW, max_age=72 * HOUR) is None
    assert explain_old_result(made=made, now=NOW, max_age=timedelta(0)) is None


def test_nothing_is_removed_by_a_clock_that_is_wrong() -> None:
    """The two servers' clocks differ, or a backup comes from the future."""
    assert explain_clock(now=NOW, server_time=NOW + SKEW, newest_taken=NOW) is None
    assert explain_clock(now=NOW, server_time=None, newest_taken=None) is None
    assert "S3 server" in (explain_clock(now=NOW, server_time=NOW - HOUR, newest_taken=NOW) or "")
    assert "dated" in (explain_clock(now=NOW, server_time=NOW, newest_taken=NOW + HOUR) or "")


def test_every_database_that_is_listed_is_judged_by_age() -> None:
    """One whose runs are all damaged has no verified backup, and nothing says how old that is."""
    (good,) = runs_of(MANIFEST)
    damaged = replace(good, database="shop")
    newest = [{"database": good.database, "system_identifier": SYSTEM, "run_id": RUN, "age_seconds": 60}]
    check_ages(newest, [good], 3600, "s3://b")
    with pytest.raises(OpsError, match="there are runs, and no verified backup, of shop"):
        check_ages(newest, [damaged, good, damaged], 3600, "s3://b")
    with pytest.raises(OpsError, match="is 60 s old, allowed are 59 s"):
        check_ages(newest, [good], 59, "s3://b")
    with pytest.raises(OpsError, match="there is no verified backup"):
        check_ages([], [], 3600, "s3://b")
