# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/troubleshooting.md says for how long each state of pods is borne, as the code has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.diagnosis import (
    CRASH_LOOP_RESTARTS,
    GRACE_SECONDS,
    NEXT_STEPS,
    SCALE_UP_SECONDS,
)
from support.checkout import below, role_names, text

HEADING = "## How long a state of pods is borne"


def read_section() -> str:
    """Return the section of the page, up to the next one."""
    return text(Path("docs/troubleshooting.md")).partition(HEADING)[2].partition("\n## ")[0]


def describe_limit(reason: str) -> str:
    """Return how the page writes for how long a reason is borne."""
    seconds = GRACE_SECONDS[reason]
    if reason == "CrashLoopBackOff":
        return f"{CRASH_LOOP_RESTARTS} restarts"
    if seconds is None:
        return "never"
    return f"{seconds:g} s" if seconds else "at once"


def test_the_table_has_every_reason_with_its_time_and_next_step() -> None:
    """In the order of the code, none left over."""
    rows = [line for line in read_section().splitlines() if line.startswith("| `")]
    assert rows == [f"| `{reason}` | {describe_limit(reason)} | {NEXT_STEPS[reason]} |" for reason in GRACE_SECONDS]


def test_an_autoscaler_of_nodes_has_the_time_of_the_code() -> None:
    """It is told below the table."""
    assert f"up to {SCALE_UP_SECONDS:g} s" in " ".join(read_section().split())


WAITING_MODULES = tuple(
    f"lowtide.ops.{name}:"
    for name in ("k8s_autoscaler", "k8s_rollout", "k8s_scale", "k8s_scale_to_partitions", "k8s_workload")
)
WAITING_ROLES = [
    role
    for role in role_names()
    if any(module in text(path) for path in below(f"roles/{role}/tasks", ".yml") for module in WAITING_MODULES)
]


@pytest.mark.parametrize("role", WAITING_ROLES)
def test_each_role_that_waits_for_workloads_passes_the_factor_on(role: str) -> None:
    """As an input of its own, of which the page speaks."""
    tasks = "".join(text(path) for path in below(f"roles/{role}/tasks", ".yml"))
    assert f'failure_grace_factor: "{{{{ {role}_failure_grace_factor }}}}"' in tasks
    assert f"`{role}_failure_grace_factor`" in read_section()


def test_the_roles_that_wait_are_found() -> None:
    """By the modules in their tasks."""
    assert sorted(WAITING_ROLES) == ["credentials", "diagnose", "rolling_upgrade", "scaling", "shutdown", "startup"]
