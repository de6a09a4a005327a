# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""k8s_job on a real cluster when runs are killed, compete for a lock, or lose their Job to somebody.

LOWTIDE_EXHAUSTIVE=1 lets two controllers compete in 20 rounds instead of 5.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from support.kubernetes_proxy import Fault, KubernetesProxy
from support.modules import finish_module, start_module

from .conftest import Namespace
from .job_steps import JOB, UNTIL_GO, describe_shell, is_running, list_names, run, share_folder

pytestmark = pytest.mark.lab("kubernetes")
Json = dict[str, Any]

ROUNDS = 5
"""In each part, which fits into the time of a test on a busy machine."""
PARTS = 4 if os.environ.get("LOWTIDE_EXHAUSTIVE") == "1" else 1
ALONE = "mkdir /shared/running || exit 9; sleep 0.3; echo x >> /shared/done; rmdir /shared/running"
"""Fails when another one runs at the same time: of two that make a folder, one succeeds."""


def describe_alone(namespace: Namespace, folder: Path, script: str = ALONE) -> Json:
    """Return the spec of a Job whose pods share a folder of this machine."""
    return share_folder(namespace, describe_shell(namespace, script), folder)


def start(namespace: Namespace, **params: Any) -> Popen[str]:
    """Start k8s_job with the key ``k``, unless another one is given."""
    return start_module(JOB, namespace.params(**{"name_prefix": "job", "key": "k", "timeout": 300, **params}))


def kill(process: Popen[str]) -> None:
    """End a run without any chance to do something about it."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def count_done(folder: Path) -> int:
    """Return how often the work was done."""
    return len((folder / "done").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("part", range(PARTS))
def test_two_controllers_at_once_run_one_job_at_a_time(namespace: Namespace, tmp_path: Path, part: int) -> None:
    """In each round both come to their turn, and the pods themselves find that they are alone."""
    folder = tmp_path / "shared"
    template = describe_alone(namespace, folder)
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            runs = [
                pool.submit(run, namespace, key=f"{part}-{number}-{who}", lock="schema", template=template, timeout=400)
                for who in ("a", "b")
            ]
            results = [each.result() for each in runs]
            assert [result.msg for result in results if result.failed] == [], f"round {number}"
    assert count_done(folder) == 2 * ROUNDS


def test_two_controllers_with_the_same_key_run_one_job(namespace: Namespace, tmp_path: Path) -> None:
    """Both wait for it, and both report its end."""
    folder = tmp_path / "shared"
    template = describe_alone(namespace, folder)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, namespace, lock="schema", template=template) for _who in range(2)]
        results = [each.result() for each in runs]
    assert [result.msg for result in results if result.failed] == []
    assert len({result["job"] for result in results}) == 1
    assert count_done(folder) == 1


@pytest.mark.parametrize("patch", [1, 2])
def test_a_run_killed_between_create_and_start_is_gone_on_with(
    namespace: Namespace, proxy: KubernetesProxy, tmp_path: Path, patch: int
) -> None:
    """Before it has its number (1), and before it is started (2); until then others are told whose Job that is."""
    folder = tmp_path / "shared"
    template = describe_alone(namespace, folder)
    proxy.faults = [Fault("PATCH", times=patch - 1), Fault("PATCH", hang=600)]
    process = start(namespace, host=proxy.url, lock="schema", template=template, run_id="night@1")
    namespace.wait("the patch", lambda: proxy.verbs["PATCH"] == patch)
    kill(process)
    (name,) = list_names(namespace)
    assert namespace.get("Job", name)["spec"]["suspend"] is True
    held = run(namespace, key="l", lock="schema", lock_timeout=0, template=template)
    assert f"Job {namespace.name}/{name} (it waits for its turn, before this one since" in held.msg
    assert "of run night@1" in held.msg
    again = run(namespace, lock="schema", template=template, run_id="night@1")
    assert (again.failed, again.changed, again["job"]) == (False, True, name), again.msg
    assert not run(namespace, key="l", lock="schema", template=template).failed
    assert count_done(folder) == 2


def test_a_run_killed_while_it_waits_is_gone_on_with(
    namespace: Namespace, proxy: KubernetesProxy, tmp_path: Path
) -> None:
    """The Job runs on; the next run waits for it and has its log, and the work is done once."""
    folder = tmp_path / "shared"
    template = describe_alone(namespace, folder, f"echo begun; {UNTIL_GO}; {ALONE}; echo ended")
    process = start(namespace, template=template, lock="schema")
    namespace.wait("it runs", lambda: any(is_running(namespace, name) for name in list_names(namespace)))
    kill(process)
    (name,) = list_names(namespace)
    waiting = start(namespace, host=proxy.url, template=template, lock="schema")
    namespace.wait("the next run waits", lambda: proxy.verbs["WATCH"] > 0)
    (folder / "go").touch()
    again = finish_module(waiting)
    assert (again.failed, again.changed, again["job"]) == (False, False, name), again.msg
    assert again["log"] == "begun\nended"
    assert again["summary"].startswith(f"Job {namespace.name}/{name}, which an earlier run began, is complete after")
    assert count_done(folder) == 1


def test_a_job_that_a_rival_deletes_is_named(namespace: Namespace) -> None:
    """While it runs, and while it waits for its turn; the next run starts it anew."""
    template = describe_shell(namespace, "sleep 1000")
    process = start(namespace, template=template, lock="schema")
    namespace.wait("it runs", lambda: any(is_running(namespace, name) for name in list_names(namespace)))
    (holder,) = list_names(namespace)
    waiting = start(namespace, key="l", template=template, lock="schema")
    namespace.wait("the second", lambda: len(list_names(namespace)) == 2)
    (second,) = [name for name in list_names(namespace) if name != holder]
    namespace.delete("Job", second)
    gone = finish_module(waiting)
    assert gone.failed
    assert f"Job {namespace.name}/{second}: it was deleted" in gone.msg
    namespace.delete("Job", holder)
    lost = finish_module(process)
    assert lost.failed
    assert "it does not exist any more, so it is not known how it ended" in lost.msg
    anew = run(namespace, template=describe_shell(namespace, "echo anew"), lock="schema")
    assert (anew.failed, anew.changed, anew["log"]) == (False, True, "anew"), anew.msg


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/jobs", reset="after"),
        Fault("POST", "/jobs", reset="before"),
        Fault("PATCH", "/jobs", reset="after"),
    ],
    ids=["created", "not-created", "patched"],
)
def test_a_write_without_an_answer_starts_no_second_job(
    namespace: Namespace, proxy: KubernetesProxy, fault: Fault, tmp_path: Path
) -> None:
    """It is looked for, not sent again blindly."""
    folder = tmp_path / "shared"
    proxy.faults = [fault]
    done = run(namespace, host=proxy.url, lock="schema", template=describe_alone(namespace, folder))
    assert (done.failed, done.changed, fault.times) == (False, True, 0), done.msg
    assert (count_done(folder), len(list_names(namespace))) == (1, 1)
