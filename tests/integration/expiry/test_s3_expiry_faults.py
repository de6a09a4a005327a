# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""s3_expiry when something is in its way: other clients, denied rights, locks, lost answers, kills, wrong options."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from labkit.versitygw_setup import APPENDING, make_policy

from support.expiry import PAST, Artifacts
from support.modules import run_module, start_module
from support.s3_proxy import Fault, Request, s3_proxy
from support.s3_servers import apply_first, look_at_etags

pytestmark = pytest.mark.lab("s3", "versitygw")
ARTIFACTS = "feature-artifacts"
EXPIRY = "s3-policy-expiry.json"


def is_removal(request: Request) -> bool:
    """Whether a request removes objects."""
    return request.is_deletion or request.is_bulk_deletion


@pytest.mark.parametrize("how", ["singly", "by ETags"])
def test_an_object_replaced_after_the_listing_stays(how: str, artifacts: Artifacts) -> None:
    """In a bucket without versions (F34): the new one is there, whole, and reported; the others go."""
    for key in ("a", "b", "c"):
        artifacts.put(key, expires_at=PAST)

    def replace_one(request: Request) -> Fault | None:
        if is_removal(request) and not replaced:
            replaced.append(artifacts.put("b", b"new"))
        return None

    replaced: list[str] = []
    rule = (
        apply_first(replace_one, look_at_etags(artifacts.client, artifacts.bucket))
        if how == "by ETags"
        else replace_one
    )
    with s3_proxy(artifacts.server["endpoint_url"], rule) as proxy:
        params = artifacts.params(expiry_metadata="expires_at", endpoint_url=proxy.url)
        run = run_module("s3_expiry", params)
    assert not run.failed, run.msg
    assert replaced
    assert artifacts.names() == {"b"}
    assert artifacts.get("b") == b"new"
    assert (sorted(run["removed"]), run["replaced"]) == (["a", "c"], ["b"])
    assert "1 replaced meanwhile and kept" in run["summary"]
    assert sum(request.is_bulk_deletion for request in proxy.seen) == (2 if how == "by ETags" else 1)


def test_an_object_replaced_in_a_bucket_with_versions_is_below_a_marker(artifacts: Artifacts) -> None:
    """F34: nothing is lost, also where the server does not look at ETags. With ``all`` only what was listed goes."""
    artifacts.turn_on_versions()
    artifacts.put("b", b"old", expires_at=PAST)

    def replace_it(request: Request) -> Fault | None:
        if is_removal(request):
            artifacts.put("b", b"new")
        return None

    for versions in ("current", "all"):
        with s3_proxy(artifacts.server["endpoint_url"], replace_it) as proxy:
            params = artifacts.params(expiry_metadata="expires_at", endpoint_url=proxy.url, versions=versions)
            run = run_module("s3_expiry", params)
        assert not run.failed, run.msg
        bodies = {
            artifacts.client.get_object(Bucket=artifacts.bucket, Key=key, VersionId=version)["Body"].read()
            for key, version, is_marker in artifacts.list_versions()
            if not is_marker
        }
        assert b"new" in bodies


def test_object_lock_keeps_what_it_has_to(locked: Artifacts) -> None:
    """Also where the server refuses the whole request because of one object: the others go, and it is named."""
    for number in range(5):
        locked.put(f"{number}")
    held = next(version for key, version, _marker in locked.list_versions() if key == "3")
    locked.hold("3", held, status="ON")
    run = run_module("s3_expiry", locked.params(older_than="0", versions="all"))
    assert run.failed
    assert run.changed
    assert [(entry["key"], entry["version_id"], entry["code"]) for entry in run["not_removed"]] == [
        ("3", held, "AccessDenied")
    ]
    assert locked.list_versions() == [("3", held, False)]
    assert "Object Lock" in run.msg


def test_object_lock_keeps_what_its_retention_holds(locked: Artifacts) -> None:
    """Until its time is over, and named; a delete marker above it is allowed, and takes nothing away."""
    for number in range(3):
        locked.put(f"{number}")
    held = next(version for key, version, _marker in locked.list_versions() if key == "1")
    until = datetime.now(UTC) + timedelta(days=1)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    locked.client.put_object_retention(Bucket=locked.bucket, Key="1", VersionId=held, Retention=retention)
    try:
        marked = run_module("s3_expiry", locked.params(prefix="1", older_than="0"))
        assert marked["removed"] == ["1"], marked.result
        assert locked.names() == {"0", "2"}
        run = run_module("s3_expiry", locked.params(older_than="0", versions="all"))
        assert run.failed
        assert [(entry["key"], entry["version_id"]) for entry in run["not_removed"]] == [("1", held)]
        assert "Object Lock" in run.msg
        left = locked.list_versions()
        assert ("1", held, False) in left
        assert {(key, marker) for key, _id, marker in left} == {("1", False), ("1", True)}
    finally:
        locked.let_retention_be_ended()
        locked.client.delete_object(Bucket=locked.bucket, Key="1", VersionId=held, BypassGovernanceRetention=True)


def test_while_versions_are_suspended_nothing_is_lost_that_is_written_meanwhile(real_artifacts: Artifacts) -> None:
    """What goes by the id null, and is not the current one, stays and is named; all else that is due goes.

    Not on moto, which takes all of a key for one version of it while versions are suspended.
    """
    real_artifacts.put("below", b"null")
    real_artifacts.turn_on_versions()
    for key in ("below", "gone"):
        real_artifacts.put(key, b"1")
        real_artifacts.put(key, b"2")
    real_artifacts.turn_on_versions("Suspended")
    real_artifacts.put("current", b"null")
    run = run_module("s3_expiry", real_artifacts.params(older_than="0", versions="all"))
    assert not run.failed, run.msg
    assert run["versioning"] == "Suspended"
    assert real_artifacts.names() == {"below"}
    left = [(key, marker) for key, _version, marker in real_artifacts.list_versions()]
    assert left == [("below", False), ("below", False), ("current", True)]
    assert real_artifacts.get("below") == b"2"
    assert any("takes its id null" in entry["what"] for entry in run["blockers"])


def test_a_delete_marker_replaces_no_older_version(real_artifacts: Artifacts) -> None:
    """While versions are suspended it takes the id null: an object over a version of that id stays, and is named."""
    real_artifacts.put("below", b"null", tags="keep=yes")
    real_artifacts.turn_on_versions()
    for key in ("below", "gone"):
        real_artifacts.put(key, b"1")
    real_artifacts.turn_on_versions("Suspended")
    real_artifacts.put("current", b"null")
    run = run_module("s3_expiry", real_artifacts.params(older_than="0"))
    assert not run.failed, run.msg
    assert sorted(run["removed"]) == ["current", "gone"]
    assert real_artifacts.get("below") == b"1"
    versions = [(key, marker) for key, _version, marker in real_artifacts.list_versions()]
    assert versions.count(("below", False)) == 2
    assert ("gone", False) in versions
    assert any("its delete marker would have the id null" in entry["what"] for entry in run["blockers"])


def test_the_documented_rights_are_enough_and_others_are_named(lab: dict[str, Any], real_artifacts: Artifacts) -> None:
    """The account of docs/s3-policy-expiry.json; the one of backups may not remove anything."""
    own = lab["versitygw"]["append_only"]
    account = {name: own[name] for name in ("credentials_file", "profile")}
    for key in ("a", "b"):
        real_artifacts.put(key, expires_at=PAST)
    denied = run_module("s3_expiry", real_artifacts.params(older_than="0", **account))
    assert denied.failed
    assert denied["error"]["refused"]
    assert "s3:ListBucket" in denied.msg
    documented = make_policy(real_artifacts.bucket, own["access_key"], EXPIRY, documented=ARTIFACTS)
    policies = {
        "unlisted": make_policy(real_artifacts.bucket, own["access_key"], APPENDING),
        "refused": documented.replace('"s3:DeleteObject", ', ""),
        "granted": documented,
    }
    for name, policy in policies.items():
        real_artifacts.client.put_bucket_policy(Bucket=real_artifacts.bucket, Policy=policy)
        params = real_artifacts.params(expiry_metadata="expires_at", **account)
        run = run_module("s3_expiry", params)
        assert run.failed == (name != "granted"), run.result
        assert run.changed == (name == "granted")
        if run.failed:
            assert ("s3:DeleteObject" if name == "refused" else "s3:ListBucketVersions") in run.msg
            assert len(run.result.get("not_removed", [])) == (2 if name == "refused" else 0)
            assert real_artifacts.names() == {"a", "b"}
    assert real_artifacts.names() == set()
    real_artifacts.turn_on_versions()
    real_artifacts.put("c", expires_at=PAST, tags="team=x")
    options = {"versions": "all", "expiry_metadata": "expires_at", "tags": {"team": "x"}}
    versions = run_module("s3_expiry", real_artifacts.params(**options, **account))
    assert not versions.failed, versions.msg
    assert real_artifacts.list_versions() == []
    real_artifacts.put("d", expires_at=PAST)
    marked = run_module("s3_expiry", real_artifacts.params(expiry_metadata="expires_at", **account))
    assert (marked["versioning"], marked["removed"]) == ("Unknown", ["d"])
    assert [marker for _key, _id, marker in real_artifacts.list_versions()] == [False, True]


@pytest.mark.parametrize("versioned", [pytest.param(False, marks=pytest.mark.sweep), True])
def test_killed_in_the_middle_and_run_again(versioned: bool, real_artifacts: Artifacts) -> None:
    """It goes on with what is left; and with ``all`` no older version was the current one in between."""
    if versioned:
        real_artifacts.turn_on_versions()
    for body in (b"1", b"2"):
        for number in range(40):
            real_artifacts.put(f"{number:02}", body)
    removals: list[int] = []

    def kill_late(request: Request) -> Fault | None:
        if is_removal(request):
            removals.append(request.number)
            if len(removals) == (2 if versioned else 20):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return Fault(status=503, code="ServiceUnavailable")
        return None

    with s3_proxy(real_artifacts.server["endpoint_url"], kill_late) as proxy:
        params = real_artifacts.params(older_than="0", versions="all")
        process = start_module("s3_expiry", {**params, "endpoint_url": proxy.url})
        process.communicate()
    left = real_artifacts.names()
    assert left
    assert {real_artifacts.get(key) for key in left} == {b"2"}
    run = run_module("s3_expiry", params)
    assert not run.failed, run.msg
    assert real_artifacts.list_versions() == []
    assert not run_module("s3_expiry", params).changed


def test_a_lost_answer_and_a_busy_server(moto_artifacts: Artifacts) -> None:
    """An answer that is lost makes the library ask again; one that never comes is told, with ``changed``."""
    for number in range(5):
        moto_artifacts.put(f"{number}")
    params = moto_artifacts.params(older_than="0", condition="none")
    lost: list[Request] = []

    def lose_first(request: Request) -> Fault | None:
        if request.is_bulk_deletion and not lost:
            lost.append(request)
            return Fault(drop_answer=True)
        return None

    with s3_proxy(moto_artifacts.server["endpoint_url"], lose_first) as proxy:
        run = run_module("s3_expiry", {**params, "endpoint_url": proxy.url})
    assert not run.failed, run.msg
    assert lost
    assert len(run["removed"]) == 5
    moto_artifacts.put("x")
    with s3_proxy(
        moto_artifacts.server["endpoint_url"], lambda request: Fault(drop_answer=True) if is_removal(request) else None
    ) as proxy:
        silent = run_module("s3_expiry", {**params, "endpoint_url": proxy.url})
    assert silent.failed
    assert silent.changed
    assert "no answer" in silent.msg


def test_a_server_that_ignores_conditions_is_left_alone(moto_artifacts: Artifacts) -> None:
    """One object that was due has gone, and is told; the others are kept."""
    for number in range(5):
        moto_artifacts.put(f"{number}")

    def ignore(request: Request) -> Fault | None:
        if not request.is_deletion:
            return None
        key = request.target.rpartition("/")[2].partition("?")[0]
        moto_artifacts.client.delete_object(Bucket=moto_artifacts.bucket, Key=key)
        return Fault(status=204, body=b"")

    with s3_proxy(moto_artifacts.server["endpoint_url"], ignore) as proxy:
        run = run_module("s3_expiry", moto_artifacts.params(older_than="0", endpoint_url=proxy.url))
    assert run.failed
    assert run.changed
    assert len(run["removed"]) == 1
    assert len(moto_artifacts.names()) == 4
    assert "If-Match" in run.msg
    assert "condition to none" in run.msg


BAD_INPUT: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["no rule says what goes", "older_than=0"]),
    ({"older_than": "last week"}, ["option older_than", "'last week'", "24h"]),
    ({"older_than": "1d", "keep": -1}, ["option keep", "-1"]),
    ({"older_than": "1d", "max_share": 0}, ["option max_share", "0"]),
    ({"older_than": "1d", "max_objects": 0}, ["option max_objects", "0"]),
    ({"older_than": "1d", "max_bytes": "much"}, ["option max_bytes", "'much'", "10GiB"]),
    ({"older_than": "1d", "timeout": 0}, ["option timeout", "0"]),
    ({"older_than": "1d", "bucket": "lt-no-such-bucket"}, ["lt-no-such-bucket", "does not exist"]),
    ({"older_than": "1d", "endpoint_url": "http://127.0.0.1:9"}, ["http://127.0.0.1:9", "Connection refused"]),
]


def test_bad_input_is_refused(real_artifacts: Artifacts) -> None:
    """Object, value, next step; in check mode the same."""
    real_artifacts.put("a")
    for wrong, words in BAD_INPUT:
        run = run_module("s3_expiry", real_artifacts.params(**wrong), check=len(wrong) % 2 == 0)
        assert run.failed, wrong
        assert run["error"]["refused"], wrong
        for part in words:
            assert part in run.msg, (wrong, run.msg)
    assert real_artifacts.names() == {"a"}


def test_what_is_left_when_the_time_is_over(real_artifacts: Artifacts) -> None:
    """A slow server: what was removed is told to the last object, and the next run goes on."""
    names = {f"{number:03}" for number in range(80)}
    real_artifacts.put_many(dict.fromkeys(names, b"x"))
    slow = threading.Event()

    def delay(request: Request) -> Fault | None:
        if is_removal(request):
            slow.wait(0.3)
        return None

    params = real_artifacts.params(older_than="0")
    with s3_proxy(real_artifacts.server["endpoint_url"], delay) as proxy:
        run = run_module("s3_expiry", {**params, "endpoint_url": proxy.url, "timeout": 1})
    assert run.failed
    assert "the time of 1 s is over" in run.msg
    assert set(run["removed"]) == names - real_artifacts.names()
    assert run["removed"] != names
    assert not run_module("s3_expiry", params).failed
    assert real_artifacts.names() == set()
