# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""s3_expiry on a thousand keys with everything in them that a server takes: byte by byte, partly denied, by few requests."""

from __future__ import annotations

import json
import math
import signal
from typing import Any

import pytest

from support.expiry import Artifacts
from support.modules import ModuleRun, run_module, start_module
from support.s3_proxy import Fault, Proxy, Request, s3_proxy
from support.s3_servers import Rule, answer_deletions

pytestmark = pytest.mark.lab("s3", "versitygw")
COUNT = 1003
"""More than a page of a listing, and of a removal, has."""
PREFIX = "d%75e + ü/"
NEAR = ["due + ü/", "d%75e   ü/", "d%75e + u\u0308/", "d%2575e + ü/", "D%75E + ü/", "d%75e + ü"]
"""What a prefix becomes that is decoded, normalised or cut somewhere; nothing below these may go."""
SHAPES = [
    "a+b",
    "%41",
    "%2F",
    "%",
    " x ",
    "\u00fc",
    "u\u0308",
    "\U0001f600",
    "tab\tx",
    ".hidden",
    "...",
    "..x",
]
SHAPES += ["x.", "'q\"", "<&>", "\\b", "\u2028", "\x7f", "{{ 1 }}", "*?[a]", "-rf", "$(id)"]
SHAPES_OF = {
    "s3": ["/lead", "//two", "a//b", "a/./b", "./a", "a/../b", "..", "slash/", "/"],
    "versitygw": ["new\nline", "\nx", "x\n", "cr\rx"],
}
"""moto takes no newline in a key, and answers with a bare return, of which XML makes one. versitygw, whose keys are paths
of files, has no empty part and none of dots in them."""
BESIDE = [f"{near}x" for near in NEAR]
HELD = "held"


def name_keys(server: str) -> list[str]:
    """Keys of each shape and each number; every third may not be deleted."""
    shapes = [*SHAPES, *SHAPES_OF[server]]
    assert len(shapes) % 3
    return [
        f"{PREFIX}{number:03}{shapes[number % len(shapes)]}{HELD if number % 3 == 0 else 'free'}"
        for number in range(COUNT)
    ]


def deny_some(lab: dict[str, Any], server: str, artifacts: Artifacts) -> tuple[dict[str, Any], Rule]:
    """Have the server refuse what is held: versitygw by a policy, moto, which has none, by its answer; and how to ask."""
    if server == "s3":
        return {}, answer_deletions(
            artifacts.client, artifacts.bucket, lambda key, _etag: "AccessDenied" if key.endswith(HELD) else ""
        )
    own = lab["versitygw"]["append_only"]
    place = f"arn:aws:s3:::{artifacts.bucket}"
    allowed = {"s3:GetObject": f"{place}/*", "s3:DeleteObject": f"{place}/*free"}
    allowed |= dict.fromkeys(("s3:ListBucket", "s3:ListBucketVersions"), place)
    principal = {"AWS": [own["access_key"]]}
    statements = [
        {"Effect": "Allow", "Principal": principal, "Action": [action], "Resource": [resource]}
        for action, resource in allowed.items()
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    artifacts.client.put_bucket_policy(Bucket=artifacts.bucket, Policy=policy)
    return {name: own[name] for name in ("credentials_file", "profile")}, lambda _request: None


def make_params(artifacts: Artifacts, **options: Any) -> dict[str, Any]:
    """All below the prefix goes, whatever its age."""
    return artifacts.params(prefix=PREFIX, older_than="0", condition="none", max_objects=COUNT, **options)


def run_through_proxy(artifacts: Artifacts, rule: Rule, **options: Any) -> tuple[ModuleRun, Proxy]:
    """Run s3_expiry to its end."""
    with s3_proxy(artifacts.server["endpoint_url"], rule) as proxy:
        params = make_params(artifacts, **options)
        return run_module("s3_expiry", {**params, "endpoint_url": proxy.url}), proxy


@pytest.mark.procedure("A17")
@pytest.mark.parametrize("server", ["s3", "versitygw"])
def test_a_thousand_keys_partly_denied(server: str, lab: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """F33: each that is refused is named and not counted, all others go, nothing beside does. versitygw refuses the batch, so that P11 is counted on moto."""
    artifacts: Artifacts = request.getfixturevalue("moto_artifacts" if server == "s3" else "real_artifacts")
    keys = name_keys(server)
    beside = {f"{near}{shape}{number}" for number, near in enumerate(NEAR) for shape in SHAPES}
    artifacts.put_many(dict.fromkeys([*keys, *beside], b"x"))
    assert artifacts.names() == {*keys, *beside}
    held = {key for key in keys if key.endswith(HELD)}
    account, rule = deny_some(lab, server, artifacts)
    run, proxy = run_through_proxy(artifacts, rule, **account)
    assert run.failed
    assert run.changed
    assert {entry["key"] for entry in run["expired"]} == set(keys)
    assert {entry["key"] for entry in run["not_removed"]} == held
    assert {entry["code"] for entry in run["not_removed"]} == {"AccessDenied"}
    assert sorted(run["removed"]) == sorted(set(keys) - held)
    assert artifacts.names() == {*held, *beside}
    assert f"{len(held)} of {COUNT} objects" in run.msg
    assert "s3:DeleteObject" in run.msg
    assert f"removed {COUNT - len(held)} of {COUNT} expired objects" in run["summary"]
    if server == "s3":
        refuse_many_requests(proxy)
    done, _proxy = run_through_proxy(artifacts, lambda _request: None)
    assert not done.failed, done.msg
    assert set(done["removed"]) == held
    assert artifacts.names() == beside


def refuse_many_requests(proxy: Proxy) -> None:
    """N objects of which all go: ceil(N/1000) + ceil(N/1000) + 2 requests at most (goal P11)."""
    assert len(proxy.seen) <= 2 * math.ceil(COUNT / 1000) + 2, [(one.method, one.target) for one in proxy.seen]


def test_killed_between_two_batches(real_artifacts: Artifacts) -> None:
    """A thousand are gone, by no more requests than P11; the others and all beside are whole until the next run."""
    keys = sorted(name_keys("versitygw"))
    real_artifacts.put_many(dict.fromkeys([*keys, *BESIDE], b"x"))
    batches: list[Request] = []

    def kill_second(request: Request) -> Fault | None:
        if not request.is_bulk_deletion:
            return None
        batches.append(request)
        if len(batches) == 1:
            return None
        process.send_signal(signal.SIGKILL)
        process.wait()
        return Fault(status=503, code="ServiceUnavailable")

    with s3_proxy(real_artifacts.server["endpoint_url"], kill_second) as proxy:
        process = start_module("s3_expiry", {**make_params(real_artifacts), "endpoint_url": proxy.url})
        process.communicate(timeout=600)
    assert len(batches) == 2
    refuse_many_requests(proxy)
    left = real_artifacts.names() - set(BESIDE)
    assert len(left) == COUNT - 1000
    assert left < set(keys)
    run = run_module("s3_expiry", make_params(real_artifacts))
    assert not run.failed, run.msg
    assert set(run["removed"]) == left
    assert real_artifacts.names() == set(BESIDE)
