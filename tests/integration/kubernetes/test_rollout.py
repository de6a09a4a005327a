# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_rollout against a real cluster: what is declared is rolled out, once, and everything that can be declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Namespace
from .rollout_steps import (
    KINDS,
    RULES,
    check_done,
    list_running_images,
    put,
    read_image,
    read_note,
    roll_out,
)

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]


@pytest.mark.procedure("C17", "C23")
@pytest.mark.parametrize("kind", [*KINDS, "DaemonSet"])
def test_check_real_check_real(namespace: Namespace, connect: Callable[..., Json], kind: str) -> None:
    """With the documented rights: the first run rolls out, the others find it so. It ends when no old pod is left."""
    old, new = namespace.facts["images"]
    account = connect(RULES)
    kind = put(namespace, kind)
    change: Json = {"containers": [{"name": "main", "image": new, "env": {"SETTING": "1"}}], **account}
    predicted = check_done(roll_out(namespace, kind, check=True, **change))
    assert read_image(namespace, kind) == old
    done = check_done(roll_out(namespace, kind, **change))
    assert (predicted["plan"], predicted["diff"]) == (done["plan"], done["diff"])
    assert (predicted.changed, done.changed, done["rolled_back"]) == (True, True, False)
    assert list_running_images(namespace) == {new}
    assert done["revision"] == {"before": 1, "after": 2}
    assert {pod["image"] for pod in done["pods"]} == {new}
    assert read_note(namespace, kind)["completed"] is True
    generation = namespace.get(kind, "w")["metadata"]["generation"]
    for check in (True, False):
        again = check_done(roll_out(namespace, kind, check=check, **change))
        assert (again.changed, again["plan"]) == (False, [])
        assert again["summary"].startswith(f"{kind} {namespace.name}/w is as declared: revision 2")
    assert namespace.get(kind, "w")["metadata"]["generation"] == generation
