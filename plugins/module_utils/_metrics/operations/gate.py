# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of promql_gate: ask, judge, and go on asking for as long as values have to stay within their limits.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..._common.errors import WaitTimeout
from ..._common.outcome import Blocker, Outcome
from ..._common.retry import Deadline
from ..limits import Answer, Breach, Query, describe_answer, find_breaches, read_queries, summarize_gate
from ..prometheus import Prometheus

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


class Gate:
    """One run: ``judge`` fills the outcome and raises OpsError where the gate is closed."""

    def __init__(self, server: Prometheus, queries: t.Sequence[Query], params: t.Mapping[str, t.Any]) -> None:
        self.server = server
        self.queries = queries
        self.params = params
        self.answers: list[Answer] = []
        self.breaches: list[Breach] = []
        self.rounds = 0

    def judge(self, deadline: Deadline, *, wait: bool) -> float:
        """Ask until all values were within limits for ``hold`` seconds. Return for how long they were, up to now.

        A value that is not within them ends it, unless ``deadline`` (the time that values may need to come within them)
        is not over. Then the time of staying within begins anew.
        """
        within: Deadline | None = None
        while True:
            self._ask()
            if self.breaches:
                within = None
                if not wait or deadline.passed:
                    return 0.0
                deadline.pause(self.params["interval"])
                continue
            within = within or self._make_hold()
            if not wait or within.passed:
                return within.elapsed
            within.pause(self.params["interval"])

    def _make_hold(self) -> Deadline:
        return Deadline(self.params["hold"])

    def _ask(self) -> None:
        deadline = Deadline(self.params["request_timeout"])
        self.answers = [self.server.ask(query, deadline) for query in self.queries]
        self.breaches = find_breaches(self.answers)
        self.rounds += 1


def run_gate(module: AnsibleModule, outcome: Outcome) -> None:
    """Read the options, judge, report."""
    params = module.params
    queries = read_queries(params["queries"])
    server = Prometheus(
        params["url"],
        headers=params["headers"],
        token_file=params["token_file"],
        ca_path=params["ca_path"],
        validate_certs=params["validate_certs"],
    )
    if not params["validate_certs"]:
        module.warn(f"The TLS certificate of {server.url} is not verified: validate_certs is false.")
    gate = Gate(server, queries, params)
    deadline = Deadline(params["timeout"])
    held = gate.judge(deadline, wait=not module.check_mode)
    _report(outcome, gate, held, waited=deadline.elapsed, check_mode=module.check_mode)
    if gate.breaches and not module.check_mode:
        first = gate.breaches[0]
        rest = [str(breach) for breach in gate.breaches[1:4]]
        raise WaitTimeout(
            obj=first.title,
            problem="; ".join([first.problem, *rest]),
            next_step=f"Look at {first.query.text} at {server.url}; correct what it measures, or its limits",
        )


def _report(outcome: Outcome, gate: Gate, held: float, *, waited: float, check_mode: bool) -> None:
    outcome.waited = waited if gate.rounds > 1 else 0.0
    outcome.summary = summarize_gate(gate.answers, gate.breaches, held=held, check_mode=check_mode)
    outcome.evidence += [line for answer in gate.answers for line in describe_answer(answer)]
    outcome.blockers += [
        Blocker(breach.title, breach.problem, gate.server.url, "Correct what it measures, or its limits")
        for breach in gate.breaches
    ]
    outcome.facts["passed"] = not gate.breaches
    outcome.facts["rounds"] = gate.rounds
    outcome.facts["values"] = [
        {"name": answer.query.name, "labels": sample.labels, "value": _as_json(sample.value)}
        for answer in gate.answers
        for sample in answer.samples
    ]


def _as_json(value: float) -> float | str:
    """Return a number as JSON has it; NaN and infinity as text, since it has none."""
    return value if abs(value) < float("inf") else str(value)
