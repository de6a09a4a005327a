# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module systemd_units (role service) names what the OOM killer has hit, with its evidence taken first."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.outcome import Outcome
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.units import parse_shown
from unit.systemd.memory_systemd import MemorySystemd

Ensure = Callable[..., Outcome]
SHOWN = """Id=api.service
LoadState=loaded
ActiveState=failed
SubState=failed
Result=oom-kill
MainPID=0
NRestarts=0
InvocationID=
ActiveEnterTimestampMonotonic=5000000
ExecMainCode=2
ExecMainStatus=9
NeedDaemonReload=no
RequiredBy=
BoundBy=
ConsistsOf=
OOMPolicy=stop
"""
"""Such a unit as systemd 252 shows it, which has no MemoryPeak."""
KILLED = {"SubState": "failed", "Result": "oom-kill", "MemoryMax": "67108864", "MemoryPeak": "66060288"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("MemoryMax=infinity\n", "failed (failed), killed out of memory (result oom-kill, no MemoryMax)"),
        ("MemoryMax=67108864\n", "failed (failed), killed out of memory (result oom-kill, MemoryMax 64.0 MiB)"),
        (
            "MemoryMax=67108864\nMemoryPeak=[not set]\n",
            "failed (failed), killed out of memory (result oom-kill, MemoryMax 64.0 MiB)",
        ),
        (
            "MemoryMax=67108864\nMemoryPeak=66060288\n",
            "failed (failed), killed out of memory (result oom-kill, MemoryMax 64.0 MiB, MemoryPeak 63.0 MiB)",
        ),
        (
            "MemoryMax=18446744073709551615\nMemoryPeak=18446744073709551615\n",
            "failed (failed), killed out of memory (result oom-kill, no MemoryMax)",
        ),
    ],
)
def test_what_systemctl_shows_is_named(more: str, words: str) -> None:
    """With as much of its memory as this version of systemd knows."""
    assert parse_shown(SHOWN + more, ["api.service"], 0.0)["api.service"].describe() == words


def test_another_result_has_no_words_on_memory() -> None:
    """A signal may have many senders."""
    shown = parse_shown(SHOWN.replace("oom-kill", "signal") + "MemoryMax=67108864\n", ["api.service"], 0.0)
    assert shown["api.service"].describe() == "failed (failed), result signal"


@pytest.mark.procedure("D24")
def test_the_evidence_is_taken_before_the_start(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Which makes systemd forget the result; the journal is bounded and has no secret. It is started all the same."""
    systemd.add("db")
    systemd.add("api", "failed", **KILLED, ExecMainStatus="9")
    systemd.journal["api.service"] = [*(f"line {number}" for number in range(30)), "loading with password=planted-5e1d"]
    outcome = ensure([["db"], ["api"]], log_lines=3)
    (killed,) = outcome.facts["out_of_memory"]
    assert killed["unit"] == "api.service"
    assert killed["state"].startswith("failed (failed), killed out of memory (result oom-kill, MemoryMax 64.0 MiB")
    assert (killed["memory_max"], killed["memory_peak"], killed["exit_status"]) == (67108864, 66060288, "9")
    assert killed["journal"] == ["line 28", "line 29", "loading with password=[redacted]"]
    assert "planted" not in str(outcome.as_result())
    assert systemd.asked.index("journalctl") < systemd.asked.index("reset-failed")
    assert (systemd.resets, systemd.commands) == (["api"], [("start", "api")])
    assert outcome.summary == "started api.service; api.service had been killed out of memory"
    assert any(
        line.startswith("api.service: before this run: failed (failed), killed out") for line in outcome.evidence
    )


def test_a_unit_that_systemd_has_started_again_is_known_by_its_record(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Its result is success by then; systemd's own record of the kill is in the journal, with its time."""
    systemd.add("api", NRestarts="1")
    at = time.time() - 600
    systemd.records["api.service"] = [
        f"{at:.6f} web1 systemd[1]: api.service: A process of this unit has been killed by the OOM killer."
    ]
    systemd.journal["api.service"] = ["growing"]
    outcome = ensure(["api"], "restarted", restarted_after=time.time() - 1)
    (killed,) = outcome.facts["out_of_memory"]
    assert killed["at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    assert systemd.asked.index("journalctl") < systemd.asked.index("stop")
    assert systemd.commands == [("stop", "api"), ("start", "api")]
    assert outcome.summary == "restarted api.service; api.service had been killed out of memory"


def test_what_stays_as_it_is_is_not_looked_at(systemd: MemorySystemd, ensure: Ensure) -> None:
    """Nor is anything said of a unit that ran into no limit."""
    systemd.add("api")
    systemd.add("web", "failed", SubState="failed", Result="exit-code")
    systemd.records["api.service"] = [f"{time.time():.6f} web1 systemd[1]: api.service: A process of this unit"]
    outcome = ensure(["api", "web"])
    assert outcome.facts["out_of_memory"] == []
    assert outcome.summary == "started web.service"


def test_a_rehearsal_says_it_too(systemd: MemorySystemd, ensure: Ensure) -> None:
    """With the evidence, and without a write."""
    systemd.add("api", "failed", **KILLED)
    outcome = ensure(["api"], check=True)
    assert systemd.commands == []
    assert outcome.summary == "would start api.service; api.service had been killed out of memory"
    assert outcome.facts["out_of_memory"][0]["unit"] == "api.service"


def test_one_that_is_killed_while_it_starts_fails_as_such(systemd: MemorySystemd, ensure: Ensure) -> None:
    """The failure says it, and so does what is kept of the unit."""
    systemd.add("api", "inactive")

    def kill(name: str) -> str:
        systemd.units[f"{name}.service"] |= KILLED
        return "failed"

    systemd.on_start = kill
    outcome = Outcome()
    with pytest.raises(
        OpsError, match=r"it is failed \(failed\), killed out of memory \(result oom-kill, MemoryMax 64"
    ):
        ensure(["api"], outcome=outcome)
    assert "killed out of memory" in outcome.facts["failed_unit"]["state"]
    assert outcome.facts["out_of_memory"] == []
