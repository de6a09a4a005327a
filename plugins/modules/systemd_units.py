#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, stop, restart or switch the release of systemd services in their order, and prove that they serve."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Start, stop and restart systemd services in their order, and prove that they serve
version_added: 0.1.0
author: The lowtide.ops team (@lowtide-ops)
description:
  - Brings the services of one host to a declared state, tier by tier. Tiers are started in their order, each when the
    one before it is ready, and stopped in the reverse order. What systemd stops together with another unit is stopped
    before that one, wherever it is declared.
  - All of them are read and decided about at once, and whatever has to be refused is refused before anything is changed.
  - A service is drained before it is stopped, by the number of requests that it says are in flight.
  - A release behind a symbolic link is switched in one step. It is put back, and proven to serve, when the new one does
    not become ready or does not stay so. What is put back is drained as well. After the limit of its drain it is stopped
    whatever is in flight, since its release has to go, and the evidence says with how many requests.
  - When something fails, state and last journal lines of the unit are kept in the result before anything else is done.
  - A unit that is due and was killed out of memory is named as such, by its result C(oom-kill) or by what systemd noted in
    its journal within a day. Its state and last journal lines are in RV(out_of_memory), taken before it is stopped or
    started. It is started all the same.
  - It runs on the host itself. It signals no process by name or number; systemd does that by the unit's control group.
extends_documentation_fragment:
  - lowtide.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  tiers:
    description:
      - Tiers in the order in which they start. Each is a list of units; a flat list of units is one tier.
      - Each unit is a name, or a mapping with the keys below. A name without a suffix is that of a C(.service).
      - C(name) is the unit, never a pattern. An alias is the unit that it stands for.
      - C(ready) says when it serves. It has C(url), which must answer with C(status) (200), or C(port), which must accept
        connections, at C(address) (C(127.0.0.1)); and C(timeout) in seconds (60) and C(ca_path). Without it, a unit is
        ready when systemd calls it active.
      - C(drain) says how many requests are in flight. It has C(url), whose answer is that number, or JSON with it in
        C(field); C(limit), the seconds in which they have to end (60); optionally C(begin_url), to which a POST is sent
        before, so that the service takes no new ones, and C(cancel_url) for the way back; and C(ca_path). The way back is
        taken when the unit is not stopped after all, and for a unit that is not due, runs and is not ready, since a killed
        run may have drained it.
      - C(release) has C(link), the path of a symbolic link, and C(target), the folder that it has to point at.
      - C(shared) is true for a service that others use too. It is started if it does not run, and never stopped.
      - C(start_timeout) is the seconds that systemd may take to start it. By default that is as long as it takes at most,
        four times the unit's C(TimeoutStartSec), and its default of C(stop_timeout) to end a start that fails (90 where
        C(TimeoutStartSec) is C(infinity)). A start that is not done by then is left to systemd, which goes on with it, and
        is a failure that says so; the next run goes on waiting.
      - C(stop_timeout) is the seconds that systemd may take to stop it. By default that is as long as it takes at most,
        three times the unit's C(TimeoutStopSec) and 10 more (90 where that is C(infinity)).
      - What is not longer than C(TimeoutStartSec) or C(TimeoutStopSec) is refused before anything is changed.
    type: list
    elements: raw
    required: true
  state:
    description:
      - V(started) starts what does not run, and restarts what runs another release than the declared one.
      - V(restarted) restarts as well what has been running since before O(restarted_after).
      - V(stopped) stops all but shared units.
    type: str
    choices: [started, stopped, restarted]
    default: started
  restarted_after:
    description:
      - Time after RFC 3339, for example V(2026-11-26T02:00:00Z). With O(state=restarted), a unit that became active
        before it is restarted, and a second run changes nothing. Required there, and refused if it is in the future.
    type: str
  on_busy:
    description:
      - What is done with a unit that has requests in flight when the limit of its drain is over, or that does not say
        how many it has. With V(fail) it is not stopped, and what a restart has stopped before it is started again; no
        release is put back.
    type: str
    choices: [fail, stop]
    default: fail
  canary_seconds:
    description:
      - After a change, how long all units are looked at, once a second. One failed check, or one that is started anew,
        is a failure.
    type: float
    default: 0.0
  log_lines:
    description: How many of the last lines of its journal are kept of a unit that failed.
    type: int
    default: 20
  lock_timeout:
    description:
      - Seconds to wait for another run over the units of this host, such as one that a killed controller has left behind.
    type: float
    default: 300.0
notes:
  - The host needs systemd and Python 3.8 or newer, and no library beside it.
  - The account needs no root. It has to be allowed to manage these units, by a rule of polkit for
    C(org.freedesktop.systemd1.manage-units), or become another that is; to read the journal (group C(systemd-journal));
    and to write to the folder of a release's link.
  - Refused before any change are running units that are not declared and that systemd would stop together with a declared
    one, targets among them; units that are not declared and that systemd would start together with a declared one (services
    but a C(oneshot) that ends, sockets, timers and paths, also through targets); running units with which a unit to start
    conflicts; active sockets, timers and paths, and units with C(Upholds=), that would start again what is to be stopped;
    units that systemd does not start or stop by hand, or that have no file to be started from again; and running units in
    an earlier tier that are not due and do not become ready in their time.
  - Before each start systemd's counts of its starts are forgotten. What something else has started between its stop and the
    switch of its release is stopped once more. What a failed run has stopped is started again whatever other units answer.
  - A unit has to stay active once it is started, so a C(oneshot) needs C(RemainAfterExit=true).
  - While a new release is not proven, the one before it is named by the link C(LINK.lowtide-previous) beside it. A run
    that follows a killed one goes on from there.
seealso:
  - module: ansible.builtin.systemd_service
"""

EXAMPLES = r"""
- name: Start cache, database and API, each when the one before it is ready
  lowtide.ops.systemd_units:
    tiers:
      - [{name: redis-server, shared: true, ready: {port: 6379}}]
      - [{name: postgresql@15-main, ready: {port: 5432}}]
      - - name: shop-api
          ready: {url: "http://127.0.0.1:8000/ready", timeout: 120}

- name: Restart the API, unless that was done since
  lowtide.ops.systemd_units:
    state: restarted
    restarted_after: "2026-11-26T02:00:00Z"
    canary_seconds: 30
    tiers:
      - name: shop-api
        ready: {url: "http://127.0.0.1:8000/ready"}
        drain: {url: "http://127.0.0.1:8000/inflight", limit: 120}

- name: Run release 2.4, or put back what ran before
  lowtide.ops.systemd_units:
    canary_seconds: 30
    tiers:
      - name: shop-api
        ready: {url: "http://127.0.0.1:8000/ready"}
        release: {link: /srv/shop/current, target: /srv/shop/releases/2.4}
"""

RETURN = r"""
check_mode:
  description: Whether all of this is a prediction.
  returned: always
  type: bool
  sample: false
summary:
  description: What was done, in one line.
  returned: always
  type: str
  sample: restarted shop-api.service
evidence:
  description: Short lines that prove the summary; after a failure also the last lines of the unit's journal.
  returned: always
  type: list
  elements: str
  sample:
    - "shop-api.service: active (running) since 2026-11-26T02:00:07Z, http://127.0.0.1:8000/ready answers 200"
    - "shop-api.service: 0 requests in flight before the stop"
plan:
  description: What is done, in its order.
  returned: always
  type: list
  elements: dict
  sample:
    - object: unit shop-api.service
      what: stop
      why: it runs since 2026-11-25T09:12:01Z, before 2026-11-26T02:00:00Z
      reversible: true
      estimate: null
blockers:
  description: Always empty; what stands in the way is a failure.
  returned: always
  type: list
  elements: dict
units:
  description: The units in start order, as they were left.
  returned: when the run was no prediction and came to a decision
  type: list
  elements: dict
  sample:
    - {name: shop-api.service, tier: 1, state: active, ready: true, stopped: true, started: true}
rolled_back:
  description: Whether a release was put back after a failure, and serves again.
  returned: when the run was no prediction and came to a decision
  type: bool
  sample: false
failed_unit:
  description: State and last journal lines of the unit on which the run failed, as it was before anything was put back.
  returned: when a unit failed
  type: dict
out_of_memory:
  description:
    - Units that were due and had been killed out of memory, as they were before anything was done to them. Each has unit,
      state, at, restarts, exit_code, exit_status, memory_max and memory_peak (in bytes, null where systemd has none),
      oom_policy and journal.
    - With cgroup v1 systemd is not told of such a kill. There the unit's result is C(signal), and it is not in here.
  returned: when the run came to a decision
  type: list
  elements: dict
  sample: []
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
  sample: 1.4
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether nothing was changed (C(refused)).
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._systemd.ensure import ARGUMENT_SPEC, ensure_units


def main() -> None:
    """Run the module."""
    run_module(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True), ensure_units)


if __name__ == "__main__":
    main()
