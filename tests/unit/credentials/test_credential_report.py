# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role says of a rotation that it has taken back: why, which credential is where, and what to do."""

from __future__ import annotations

from typing import Any

from ansible_collections.lowtide.ops.plugins.filter.credentials_report import FilterModule

Json = dict[str, Any]
report = FilterModule().filters()["credentials_report"]

ROTATED: Json = {"changed": True, "secret": "Secret shop/db", "user": "b", "summary": "switched Secret shop/db"}
FAILURE: Json = {"changed": False, "failed": True, "msg": "Roll out Deployment/api: ImagePullBackOff."}
REVERTED: Json = {"changed": True, "user": "a", "summary": "switched back"}
BACK: Json = {"workload": {"title": "Deployment shop/api"}, "revision": {"after": 7}, "images": {"api": "shop:2"}}
UNDONE: Json = {"changed": True, "results": [{**BACK, "changed": True, "summary": "put back"}]}
FINISHED: Json = {"changed": True, "summary": "a; the new one of b is refused by 1 server"}
SKIPPED: Json = {"changed": False, "skipped": True}
AGAIN = "Mend what the restart failed of, and run again: that makes another password."
GO_ON = "Mend that, and run again: that goes on with the way back."


def test_a_way_back_to_its_end() -> None:
    result = report(ROTATED, FAILURE, REVERTED, UNDONE, FINISHED)
    assert result["failed"]
    assert result["changed"]
    assert result["summary"] == (
        "What uses Secret shop/db could not be restarted with its new credential: Roll out Deployment/api:"
        " ImagePullBackOff. Secret shop/db has the old credential of a again, which works."
        " Put back: Deployment shop/api serves revision 7 (shop:2). The new one has been ended, and is refused."
        f" {AGAIN}"
    )
    later = report({**ROTATED, "summary": "the rotation is taken back"}, {}, REVERTED, UNDONE, FINISHED)
    assert later["summary"].startswith("the rotation is taken back. Secret shop/db has the old credential of a")


def test_each_part_that_failed_is_told() -> None:
    """No part is told that was not reached."""
    broken: Json = {"changed": False, "failed": True, "msg": "no answer", "user": "b"}
    secret = report(ROTATED, FAILURE, broken, {}, SKIPPED)["summary"]
    assert secret.endswith(f"The old credential could not be put back: no answer. {GO_ON}")
    stuck = {"changed": True, "failed": True, "msg": "One or more items failed", "results": [broken]}
    workloads = report(ROTATED, FAILURE, REVERTED, stuck, SKIPPED)["summary"]
    assert workloads.endswith(f"which works. Not put back: no answer {GO_ON}")
    ending = report(ROTATED, FAILURE, REVERTED, UNDONE, broken)["summary"]
    assert ending.endswith(f"The new one has not been ended and works too: no answer. {GO_ON}")
