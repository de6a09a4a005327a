#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: promql_gate
short_description: Go on only while what Prometheus measures is within limits
version_added: 0.1.0
description:
  - Asks Prometheus, or what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics), and fails unless every value of every
    query is within its limits, and stays so for O(hold) seconds.
  - What is not known is not within limits. No series, fewer than declared, a NaN or an infinity, a server that does not
    answer, and one that says that its answer may not be whole (a warning of Prometheus, C(isPartial) of VictoriaMetrics),
    all close the gate.
  - Every series of a vector is judged, and the message has the labels of those that are not within limits.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  url:
    description: Where the API begins, without C(/api/v1), such as V(https://prometheus.example.org) or with a path before it.
    type: str
    required: true
  queries:
    description: What to ask, and which values are allowed.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A name for messages.
        type: str
        required: true
      query:
        description: An expression whose result is an instant vector or a scalar.
        type: str
        required: true
      min:
        description: No value may be below it. At least one of min and max is given.
        type: float
      max:
        description: No value may be above it.
        type: float
      min_series:
        description:
          - There must be so many series at least. Set it to the number of instances, so that one that is not scraped any
            more is not taken for one that is well.
        type: int
        default: 1
  hold:
    description: For so many seconds all values must stay within their limits. With V(0) they are asked for once.
    type: float
    default: 0.0
  interval:
    description: Seconds from one look to the next.
    type: float
    default: 5.0
  timeout:
    description:
      - For so many seconds values may be outside of their limits, as after a restart whose rates have to settle first.
        Then O(hold) begins anew once they are within them. A value that is outside of them afterwards closes the gate.
      - With V(0) the first value that is outside of its limits closes it.
    type: float
    default: 0.0
  request_timeout:
    description: Seconds that an answer may take, together with further attempts where the server does not answer.
    type: float
    default: 10.0
  headers:
    description: HTTP headers that each request gets, such as V(X-Scope-OrgID). They are not shown.
    type: dict
  token_file:
    description: A file on the host where the module runs with a bearer token. It is read for each request.
    type: path
  ca_path:
    description: Certificate of the authority that signed the server's certificate.
    type: path
  validate_certs:
    description: Whether the server's certificate is checked.
    type: bool
    default: true
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.info_module
attributes:
  check_mode:
    details:
      - It asks once and does not hold. A value outside of its limits is told in RV(passed) and RV(blockers) and does not
        fail, since what is to bring it within them may only have been predicted. What is not understood fails.
notes:
  - Redirects are not followed, so that no header gets to another server.
seealso:
  - module: lowtide.ops.k8s_rollout
"""

EXAMPLES = r"""
- name: Go on only while errors are rare and every worker is scraped, for a minute
  lowtide.ops.promql_gate:
    url: https://prometheus.example.org
    token_file: /etc/lowtide/prometheus.token
    hold: 60
    timeout: 120
    queries:
      - name: share of errors
        query: sum(rate(http_requests_total{code=~"5.."}[1m])) / sum(rate(http_requests_total[1m]))
        max: 0.01
      - name: workers
        query: up{job="feature-worker"}
        min: 1
        min_series: 12

- name: Do not scale out into a limit of the provider (its 429 answers would only get more)
  lowtide.ops.promql_gate:
    url: https://prometheus.example.org
    queries:
      - name: rate limited calls
        query: sum(rate(llm_requests_total{code="429"}[5m]))
        max: 0
"""

RETURN = r"""
summary:
  description: One line that says whether all is within limits, and what is not.
  returned: success
  type: str
  sample: "within limits for 60 s: share of errors, workers"
evidence:
  description: Each value with its limits; of many series of a query the outermost ones.
  returned: always
  type: list
  elements: str
  sample: ["share of errors: 0.002 (at most 0.01)"]
check_mode:
  description: Whether this was a rehearsal in check mode, which asks once.
  returned: always
  type: bool
passed:
  description: Whether all values are within their limits.
  returned: when the server was asked
  type: bool
values:
  description: Every value that was answered last, with C(name), C(labels) and C(value). NaN and infinities are texts.
  returned: when the server was asked
  type: list
  elements: dict
rounds:
  description: How often all queries were asked.
  returned: when the server was asked
  type: int
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
blockers:
  description: What is not within its limits.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
error:
  description: The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused).
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._common.module import run_module
from ..module_utils._metrics.operations.gate import run_gate

QUERY: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "query": {"type": "str", "required": True},
    "min": {"type": "float"},
    "max": {"type": "float"},
    "min_series": {"type": "int", "default": 1},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "queries": {"type": "list", "elements": "dict", "required": True, "options": QUERY},
            "hold": {"type": "float", "default": 0.0},
            "interval": {"type": "float", "default": 5.0},
            "timeout": {"type": "float", "default": 0.0},
            "request_timeout": {"type": "float", "default": 10.0},
            "headers": {"type": "dict", "no_log": True},
            "token_file": {"type": "path", "no_log": False},
            "ca_path": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    run_module(module, run_gate)


if __name__ == "__main__":
    main()
