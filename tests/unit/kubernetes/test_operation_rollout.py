# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against the API server in memory: what is rolled out, what is written, and what a second run does."""

from __future__ import annotations

from typing import Any

import pytest

from support.memory_kubernetes import MemoryServer
from support.memory_rollouts import RolloutControllers
from support.operation_runs import list_writes

from .rollout_steps import KINDS, check_done, read_image, read_pod_images, read_saved, roll_out

Json = dict[str, Any]


@pytest.fixture
def controllers(memory: MemoryServer) -> RolloutControllers:
    """Who replaces pods at once."""
    return RolloutControllers(memory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_declared_image_is_rolled_out_once(memory: MemoryServer, controllers: RolloutControllers, kind: str) -> None:
    """Check mode predicts it and writes nothing; one write changes it, one says that it is done; then nothing more."""
    controllers.add(kind)
    predicted = check_done(roll_out(memory, kind, image="j", check=True))
    assert (list_writes(memory), read_image(memory, kind)) == ([], "i")
    done = check_done(roll_out(memory, kind, image="j"))
    for key in ("plan", "diff", "changed"):
        assert predicted[key] == done[key], key
    assert done["plan"][0]["what"] == "main: image i -> j"
    assert done["plan"][0]["reversible"] is True
    assert [fields for _name, fields in list_writes(memory)] == [["rollout", "containers"], ["rollout"]]
    assert (read_pod_images(memory), done["revision"]) == ({"j"}, {"before": 1, "after": 2})
    saved = read_saved(memory, kind)
    assert saved is not None
    assert (saved["completed"], saved["back"]["number"]) == (True, 1)
    memory.log.clear()
    again = check_done(roll_out(memory, kind, image="j"))
    assert (again.changed, again["plan"], memory.count("patch")) == (False, [], 0)
