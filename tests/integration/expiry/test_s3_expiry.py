# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""s3_expiry: what is due goes and nothing else, by few requests, within its limits; then nothing more is due."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from support.expiry import FUTURE, PAST, Artifacts
from support.modules import run_module
from support.s3_proxy import Fault, Request, s3_proxy
from support.s3_servers import Rule, look_at_etags

pytestmark = pytest.mark.lab("s3", "versitygw")

ODD = ["a b", " lead", "trail ", "plus+", "per%41cent", "emoji-\U0001f600", "tab\t", '<xml>&"', "r\rn", "%", "{{ 1 }}"]
NEWLINE = "new\nline"
"""moto does not take it."""
CONTROL = "control\x02"
"""XML cannot hold it, and versitygw lists it as something else."""


def pass_on(_request: Request) -> Fault | None:
    """Disturb nothing."""
    return None


def list_keys(result: Any) -> set[str]:
    """The keys of what a run says is due."""
    return {entry["key"] for entry in result["expired"]}


@pytest.mark.procedure("A17")
def test_expired_artifacts_go_and_no_others(artifacts: Artifacts) -> None:
    """By the metadata of the guide, whatever the keys: predicted exactly, done, and nothing is due any more."""
    odd = [
        *ODD,
        *([NEWLINE] if artifacts.server["endpoint_url"].endswith(":7070") else [CONTROL, "/lead", "//a", ".."]),
    ]
    for key in odd:
        artifacts.put(key, expires_at=PAST)
        artifacts.put(f"kept/{key}", expires_at=FUTURE)
    artifacts.put("iso", expires_at="2020-01-01T00:00:00+02:00")
    artifacts.put("never")
    artifacts.put("unclear", expires_at="2020-01-01")
    params = artifacts.params(expiry_metadata="expires_at")
    before = artifacts.names()
    prediction = run_module("s3_expiry", params, check=True)
    assert not prediction.failed, prediction.msg
    assert prediction.changed
    assert artifacts.names() == before
    assert list_keys(prediction) == {*odd, "iso"}
    assert prediction["summary"].startswith(f"would remove {len(odd) + 1} of {len(before)} objects (")
    run = run_module("s3_expiry", params)
    assert not run.failed, run.msg
    assert run.changed
    assert artifacts.names() == before - {*odd, "iso"}
    assert set(run["removed"]) == {*odd, "iso"}
    assert (run["plan"], run["expired"]) == (prediction["plan"], prediction["expired"])
    assert run["diff"] == prediction["diff"]
    assert [(entry["object"], entry["what"]) for entry in run["blockers"]] == [
        (
            f"s3://{artifacts.bucket}/unclear",
            "metadata expires_at is '2020-01-01', which is no moment with an offset",
        )
    ]
    for check in (True, False):
        again = run_module("s3_expiry", params, check=check)
        assert not again.failed, again.msg
        assert not again.changed
        assert again["expired"] == []


def test_tags_prefix_age_and_a_number_that_stays(artifacts: Artifacts) -> None:
    """Rules are joined by and; age is by the server's clock, here that of a month later."""
    artifacts.put("tmp/a", tags="expire=yes&team=x")
    artifacts.put("tmp/b", tags="expire=no&team=x")
    artifacts.put("tmp/c", tags=f"until={PAST}")
    artifacts.put("tmpfile", tags="expire=yes")
    by_tag = run_module("s3_expiry", artifacts.params(prefix="tmp/", tags={"expire": "yes"}))
    assert by_tag["removed"] == ["tmp/a"], by_tag.result
    by_moment = run_module("s3_expiry", artifacts.params(prefix="tmp/", expiry_tag="until"))
    assert by_moment["removed"] == ["tmp/c"], by_moment.result
    young = run_module("s3_expiry", artifacts.params(older_than="29d"))
    assert (young.changed, young["expired"]) == (False, [])
    later = {"Date": "Mon, 25 Jan 2027 00:00:00 GMT"}
    with s3_proxy(
        artifacts.server["endpoint_url"], lambda request: Fault(headers=later) if request.is_list else None
    ) as proxy:
        old = run_module("s3_expiry", artifacts.params(older_than="29d", keep=1, series="^", endpoint_url=proxy.url))
    assert not old.failed, old.msg
    assert len(old["removed"]) == 1
    assert artifacts.names() == {"tmp/b", "tmpfile"} - set(old["removed"])


def test_the_newest_of_each_series_stay(artifacts: Artifacts) -> None:
    """A shop whose exports have stopped keeps its last ones, whatever another has that is newer; so does each prefix."""

    def list_days(folder: str, name: str) -> list[str]:
        return [f"{folder}{name}-{datetime.now(UTC):%Y%m%d}02000{second}.csv" for second in range(1, 5)]

    stopped, going, beside = list_days("daily/", "a+b"), list_days("daily/", "%41 c"), list_days("weekly/", "a+b")
    for key in [*stopped, *beside, *going]:
        artifacts.put(key)
    params = artifacts.params(prefix="daily/", older_than="0", keep=2)
    prediction = run_module("s3_expiry", params, check=True)
    run = run_module("s3_expiry", params)
    assert not run.failed, run.msg
    assert artifacts.names() == {*stopped[2:], *going[2:], *beside}
    assert run["kept"] == prediction["kept"] == sorted([*stopped[2:], *going[2:]])
    assert run["series"] == {"daily/a+b-#.csv": 4, "daily/%41 c-#.csv": 4}
    assert not run_module("s3_expiry", params).changed
    short = run_module("s3_expiry", {**params, "prefix": "", "keep": 5, "series": "^([^/]+)/"})
    assert not short.changed
    assert "2 of 2 series have fewer objects than have to stay (5)" in short["blockers"][0]["what"]
    for tenant in (1001, 1002):
        artifacts.put(f"tenants/t-{tenant}.csv")
    alike = run_module("s3_expiry", {**params, "prefix": "tenants/", "keep": 1})
    assert (alike.failed, alike.changed, len(alike["blockers"])) == (False, False, 1), alike.msg
    assert (
        "2 series differ in digits only, and of each all is kept though it is too old" in alike["blockers"][0]["what"]
    )
    bad = run_module("s3_expiry", {**params, "series": "("})
    assert bad.failed
    assert "option series: '(' is no regular expression" in bad.msg


def count_requests(artifacts: Artifacts, rule: Rule, **options: Any) -> None:
    """Run it, with all due but the newest, and compare the requests with the goal P11.

    N objects of which M go: ceil(N/1000) + ceil(M/1000) + 2 requests at most. More of them are in test_s3_expiry_keys.
    """
    with s3_proxy(artifacts.server["endpoint_url"], rule) as proxy:
        params = artifacts.params(older_than="0", max_objects=2000, endpoint_url=proxy.url, series="^", **options)
        run = run_module("s3_expiry", params)
    assert not run.failed, run.msg
    listed, removed = run["listed"]["objects"], len(run["removed"])
    assert removed == listed - options["keep"]
    assert len(artifacts.names()) == options["keep"]
    assert len(proxy.seen) <= math.ceil(listed / 1000) + math.ceil(removed / 1000) + 2, [
        (request.method, request.target) for request in proxy.seen
    ]


def test_few_requests_whatever_protects_a_replaced_object(artifacts: Artifacts, real_artifacts: Artifacts) -> None:
    """ETags, where the server looks at them in DeleteObjects; delete markers; and versions."""
    keys = {f"due/{number:05}": b"x" for number in range(5)}
    artifacts.put_many(keys)
    count_requests(artifacts, look_at_etags(artifacts.client, artifacts.bucket), keep=2)
    real_artifacts.turn_on_versions()
    real_artifacts.put_many(keys)
    count_requests(real_artifacts, pass_on, keep=4)
    real_artifacts.clear()
    real_artifacts.put_many(keys)
    count_requests(real_artifacts, pass_on, keep=0, versions="all")


def test_limits_refuse_all_of_it(real_artifacts: Artifacts) -> None:
    """By number, bytes and share: what would go is listed, the option named, and nothing removed, in check mode too."""
    for number in range(4):
        real_artifacts.put(f"due/{number}", b"x" * 1024, expires_at=PAST)
    real_artifacts.put("kept", b"x" * 1024)
    for limit, words in (
        ({"max_objects": 3}, ["4 objects (4.0 KiB) would be removed", "at most 3 may be", "raise max_objects"]),
        ({"max_bytes": "3KiB"}, ["4 objects (4.0 KiB)", "at most 3.0 KiB may be", "raise max_bytes"]),
        ({"max_share": 79}, ["80.0 % of 5 that are there", "at most 79 % may be", "raise max_share"]),
    ):
        params = real_artifacts.params(expiry_metadata="expires_at", **limit)
        for check in [True, False] if "max_objects" in limit else [False]:
            run = run_module("s3_expiry", params, check=check)
            assert run.failed
            assert run["error"]["refused"], run.result
            assert len(run["expired"]) == 4
            for part in words:
                assert part in run.msg
    assert len(real_artifacts.names()) == 5


def test_backups_are_left_to_their_own_retention(real_artifacts: Artifacts) -> None:
    """A location in which pg_backup has put anything is refused, also by a prefix that ends within a folder's name."""
    folder = "team a/pg/shop/7428119042137459183/20261121T020000Z-5f1c2a77/"
    for part in ("dump.pgc.zst", "manifest.json"):
        real_artifacts.put(folder + part)
    real_artifacts.put("tmp/old")
    for prefix in ("", "team a/pg/shop/74", folder):
        run = run_module("s3_expiry", real_artifacts.params(prefix=prefix, older_than="0"))
        assert run.failed
        assert run["error"]["refused"]
        assert "2 of its objects are parts of backups" in run.msg
        assert "pg_backup's keep and keep_for" in run.msg
    beside = run_module("s3_expiry", real_artifacts.params(prefix="tmp/", older_than="0"))
    assert beside["removed"] == ["tmp/old"]
    assert len(real_artifacts.names()) == 2


def test_versions_stay_below_a_marker_or_go_for_good(artifacts: Artifacts) -> None:
    """With ``current`` an object can be brought back; with ``all`` nothing is left, markers included."""
    artifacts.turn_on_versions()
    for body in (b"1", b"2"):
        artifacts.put("a b", body)
    artifacts.put("kept")
    first = run_module("s3_expiry", artifacts.params(prefix="a", older_than="0"))
    assert first["removed"] == ["a b"], first.result
    assert artifacts.names() == {"kept"}
    assert sorted(marker for key, _id, marker in artifacts.list_versions() if key == "a b") == [False, False, True]
    assert not run_module("s3_expiry", artifacts.params(prefix="a", older_than="0")).changed
    options = artifacts.params(prefix="a", older_than="0", versions="all")
    prediction = run_module("s3_expiry", options, check=True)
    run = run_module("s3_expiry", options)
    assert not run.failed, run.msg
    assert len(run["removed"]) == 3
    assert run["expired"] == prediction["expired"]
    assert [key for key, _id, _marker in artifacts.list_versions()] == ["kept"]
    assert not run_module("s3_expiry", options).changed


def test_an_older_version_does_not_come_back(artifacts: Artifacts) -> None:
    """A current version that is due stays for good if an older one has to; and without its tag the older one has to."""
    artifacts.turn_on_versions()
    artifacts.put("report", b"old and secret")
    artifacts.put("report", b"new", tags="expire=yes")
    run = run_module("s3_expiry", artifacts.params(tags={"expire": "yes"}, versions="all"))
    assert not run.changed, run.result
    assert "would be the current one again" in run["blockers"][0]["what"]
    assert artifacts.get("report") == b"new"
