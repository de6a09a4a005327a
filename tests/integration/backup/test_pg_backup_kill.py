# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_backup SIGKILLed at S3 requests from its first write on; then run again.

By default at every third of them; LOWTIDE_EXHAUSTIVE=1 takes all.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from support.backups import Site
from support.modules import run_module, start_module
from support.s3_proxy import Fault, Request, s3_proxy

pytestmark = pytest.mark.lab("postgresql", "versitygw")


UNPUBLISHED = "it has no manifest: it was never verified, or its manifest has been removed"
"""Of a run that was killed between the last of its parts and its manifest."""


def undisturbed(site: Site) -> list[Request]:
    """The requests that a run makes which nobody disturbs."""
    with s3_proxy(site.server["endpoint_url"], lambda _request: None) as proxy:
        done = run_module("pg_backup", site.params(endpoint_url=proxy.url))
        assert done.changed, done.msg
        return list(proxy.seen)


def kill_at(site: Site, number: int) -> None:
    """Run the module and SIGKILL it at its request ``number``, of which the server then never hears.

    The server's state is the one after the request before, so that these points are all that can be told apart there.
    """
    started: list[subprocess.Popen[str]] = []
    hit: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if request.number < number:
            return None
        hit.append(request)
        os.kill(started[0].pid, signal.SIGKILL)
        return Fault(status=500)

    with s3_proxy(site.server["endpoint_url"], rule) as proxy:
        process = start_module("pg_backup", site.params(endpoint_url=proxy.url))
        started.append(process)
        process.communicate(timeout=120)
    assert hit, f"the run made fewer than {number} requests"
    assert process.returncode == -signal.SIGKILL


@pytest.mark.procedure("A22")
@pytest.mark.parametrize("third", [0, 1, 2] if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else [2])
def test_killed_at_any_request_the_rerun_ends_right(real_site: Site, third: int) -> None:
    """Whatever the point: a manifest only with everything that it vouches for; the rerun leaves one backup that counts."""
    requests = undisturbed(real_site)
    first_write = next(request.number for request in requests if request.method != "GET")
    assert len(requests) - first_write > 10
    published_at = []
    points = [number for number in range(first_write, len(requests) + 1) if number % 3 == third]
    for number in points:
        real_site.clear()
        kill_at(real_site, number)
        if [key for key in real_site.names() if key.endswith("manifest.json")]:
            published_at.append(number)
            seen = run_module("pg_backup_info", real_site.s3_params(verify="full"))
            assert len(seen["decoded"]) == 1, (number, seen.msg)
        real_site.wait_unlocked()
        again = run_module("pg_backup", real_site.params())
        assert not again.failed, (number, again.msg)
        # What the killed run has written stays beside it until its time is over; there is one backup that counts.
        listed = run_module("pg_backup_info", real_site.s3_params())
        assert len(listed["backups"]) == 1, (number, listed["bad"])
        assert listed["bad"] == [] or [entry["problem"] for entry in listed["bad"]] == [UNPUBLISHED], number
    # The points behind the publication are the last ones; the others left no manifest.
    assert published_at
    assert published_at == points[-len(published_at) :]
    assert points[0] not in published_at
