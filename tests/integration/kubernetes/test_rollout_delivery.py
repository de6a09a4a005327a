# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Workloads that Flagger or Argo Rollouts roll out are refused. Neither runs here: these are their APIs only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Namespace
from .rollout_steps import RULES, check_done, put, read_image, roll_out
from .steps import tell

pytestmark = [pytest.mark.lab("kubernetes"), pytest.mark.usefixtures("other_apis", "flagger")]
Json = dict[str, Any]


@pytest.mark.procedure("B19")
@pytest.mark.parametrize(
    ("api", "kind", "reference"),
    [("flagger.app/v1beta1", "Canary", "targetRef"), ("argoproj.io/v1alpha1", "Rollout", "workloadRef")],
)
def test_what_another_controller_rolls_out_is_refused(
    namespace: Namespace, connect: Callable[..., Json], api: str, kind: str, reference: str
) -> None:
    """By an account with the documented rights; once its object is gone the rollout goes on."""
    put(namespace, "Deployment", 1)
    before, account = read_image(namespace, "Deployment"), connect(RULES)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}
    namespace.apply({"apiVersion": api, "kind": kind, "metadata": {"name": "own"}, "spec": {reference: target}})
    change: Json = {"containers": [{"name": "main", "env": {"SETTING": "2"}}], **account}
    for check in (True, False):
        run = roll_out(namespace, "Deployment", check=check, **change)
        assert run.failed, tell(run)
        assert run["error"]["refused"] is True
        assert run["blockers"][0]["holder"] == f"{kind} {namespace.name}/own"
    assert read_image(namespace, "Deployment") == before
    namespace.delete(kind, "own")
    done = check_done(roll_out(namespace, "Deployment", **change))
    assert (done.changed, done["warnings"] if "warnings" in done.result else []) == (True, [])
