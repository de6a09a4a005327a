#!/usr/bin/python
# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_traffic
short_description: Send requests to a maintenance page until none is in flight, and give them back as they went before
version_added: 0.1.0
description:
  - Brings Services, Ingresses and HTTPRoutes of one namespace to V(maintenance) or V(normal).
  - Sending requests away is one patch for each object, which sets its routes and at the same time saves in its annotation
    C(lowtide.ops/traffic) what they were. So any later run, on any controller, can restore exactly that.
  - A route that another client has set to something else since is left as it is on the way back, and is reported. The
    other routes of that object are given back.
  - Nothing is sent to where nobody answers. The maintenance page must have a ready pod before the first patch,
    with the ports that the Service names in its C(targetPort).
  - A Service is switched when its EndpointSlices have no pod any more that its selector does not select. An Ingress or an
    HTTPRoute takes effect when its controller has seen it, which nothing in the API tells.
  - Then the pods that served the requests are asked, each of them, through the API server's pod proxy, how many are in
    flight (O(in_flight)). That has to be nothing for O(quiet_seconds), so that a request that was on its way when the
    routes changed is seen too. An answer that does not come, or does not have the number, counts as requests in flight.
  - Before requests are given back, as many pods as served a Service before have to be ready, or as are wanted now if that
    is less, and each ready one has to pass every check of O(smoke). Otherwise nothing is given back.
  - A client that keeps its connection open goes on sending requests to the pod that it is connected to. Let the pods
    count such connections, or close them when they are asked to drain.
author:
  - The lowtide.ops team (@lowtide-ops)
options:
  state:
    description: Where the requests should go.
    type: str
    required: true
    choices: [maintenance, normal]
  targets:
    description:
      - The objects that are switched, in this order, and in the reverse order back. Each is named once.
      - With O(state=normal) only kind and name are used.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: What kind of object it is.
        type: str
        required: true
        choices: [Service, Ingress, HTTPRoute]
      name:
        description: Its name.
        type: str
        required: true
      selector:
        description:
          - Of a Service, the labels of the pods that get its requests in maintenance.
          - Without it the Service selects no pod, and its clients are refused a connection.
        type: dict
      to_service:
        description:
          - Of an Ingress or HTTPRoute, the Service that gets the requests in maintenance.
          - An Ingress gets it as the backend of its paths. In each rule of an HTTPRoute it gets the weight 1, and
            what else is there the weight 0.
        type: str
      to_port:
        description: The port of O(targets[].to_service).
        type: int
      hosts:
        description: Of an Ingress, only the rules with these hosts, C(*) for one without a host. Without it, all.
        type: list
        elements: str
      paths:
        description: Of an Ingress, only these paths. Without it, all, and the default backend unless O(targets[].hosts) is given.
        type: list
        elements: str
      canary_weight:
        description:
          - Of an Ingress of ingress-nginx that leads to the maintenance page, the percentage of requests that it takes from the
            Ingress with the same hosts and paths. Its annotations C(canary) and C(canary-weight) are set.
          - Use V(100) to send all of them there, or the value of its annotation C(canary-weight-total) where that is set.
          - An Ingress with C(canary-by-header) or C(canary-by-cookie) is refused, since these come before the weight.
        type: int
  in_flight:
    description:
      - How the pods that serve the requests tell what is in flight. Used with O(state=maintenance), also when nothing had
        to be changed. Terminating pods are asked too.
      - Each pod that the requests go to before the switch has to be among them, or be gone. Otherwise nothing is changed, and
        the workload that is missing is named. These pods are saved with the switch, for a later run.
      - Each pod is asked once before the first patch, also in check mode. An answer without the number, or none at that path
        and port, is refused, since it could not be told with the page up either.
      - Without it nothing is asked, and the result says so.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Kind of the workload whose pods are asked.
        type: str
        required: true
        choices: [Deployment, StatefulSet, DaemonSet]
      name:
        description: Its name.
        type: str
        required: true
      port:
        description: Number or name of the port at which a pod answers.
        type: str
        required: true
      path:
        description: The path to ask, with a query if there is one.
        type: str
        default: /metrics
      scheme:
        description: How a pod is spoken with. The API server does not verify the certificate of a pod.
        type: str
        choices: [http, https]
        default: http
      metric:
        description:
          - Name of a metric in Prometheus' text format. What its samples say is added up.
          - A metric that is not there is no zero.
        type: str
      labels:
        description: Only samples that have these labels.
        type: dict
      field:
        description:
          - Name of a field of a JSON answer, its keys joined by dots.
          - Without O(in_flight[].metric) and O(in_flight[].field), the whole answer is the number.
        type: str
      limit:
        description: The number that counts as nothing. Set it to V(1) where a pod counts the request that asks.
        type: float
        default: 0.0
  in_flight_timeout:
    description: Seconds in which requests in flight have to end, at most what is left of O(timeout).
    type: float
    default: 60.0
  quiet_seconds:
    description: Seconds for which all pods have to say, each time they are asked, that nothing is in flight.
    type: float
    default: 2.0
  smoke:
    description:
      - What each ready pod has to answer before requests are given back to it. Used with O(state=normal), where there is
        something to give back. A workload without a ready pod does not pass.
      - In check mode they are asked once, and what would fail is in RV(blockers).
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: Kind of the workload whose pods are asked.
        type: str
        required: true
        choices: [Deployment, StatefulSet, DaemonSet]
      name:
        description: Its name.
        type: str
        required: true
      port:
        description: Number or name of the port at which a pod answers.
        type: str
        required: true
      path:
        description: The path to ask, with a query if there is one.
        type: str
        default: /
      scheme:
        description: How a pod is spoken with. The API server does not verify the certificate of a pod.
        type: str
        choices: [http, https]
        default: http
      status:
        description: The status that it has to answer.
        type: int
        default: 200
      contains:
        description: A text that has to be in its answer.
        type: str
  smoke_timeout:
    description: Seconds in which all checks have to pass, at most what is left of O(timeout).
    type: float
    default: 60.0
  saved_by:
    description:
      - With O(state=normal), whose switches are taken back.
      - With V(window) only those of windows. What a run that is no window sent away on purpose stays there, and is in
        RV(blockers). A run is a window if its O(run_id) contains C(@), as the variable C(window_id) does.
    type: str
    choices: [any, window]
    default: any
  guards:
    description:
      - What is looked at before requests are sent away. V(gitops) refuses to change a route that a GitOps tool or an
        operator would set back; it costs no request. The way back is never refused by it.
    type: list
    elements: str
    choices: [gitops]
    default: [gitops]
  assume:
    description:
      - For a rehearsal in check mode with O(state=normal), where an earlier step would have sent the requests away.
        The targets need all that V(maintenance) needs then.
      - Outside check mode it is refused.
    type: str
    choices: [maintenance]
extends_documentation_fragment:
  - lowtide.ops._attributes
  - lowtide.ops._attributes.actiongroup_kubernetes
  - lowtide.ops._kubernetes
  - lowtide.ops._kubernetes.acting
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written, and nothing is waited for. Pods are asked once.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: lowtide.ops.k8s_workload
"""

EXAMPLES = r"""
- name: Show the maintenance page, and wait until no request is in flight
  lowtide.ops.k8s_traffic:
    state: maintenance
    namespace: shop
    targets:
      - {kind: Service, name: web, selector: {app: maintenance-page}}
    in_flight:
      - {kind: Deployment, name: web, port: 8080, metric: http_requests_in_flight}

- name: Give traffic back, once every pod passes two checks
  lowtide.ops.k8s_traffic:
    state: normal
    namespace: shop
    targets:
      - {kind: Service, name: web}
    smoke:
      - {kind: Deployment, name: web, port: 8080, path: /healthz}
      - {kind: Deployment, name: web, port: 8080, path: /api/products, contains: products}

- name: Only one host of an Ingress, and an HTTPRoute
  lowtide.ops.k8s_traffic:
    state: maintenance
    namespace: shop
    targets:
      - {kind: Ingress, name: shop, hosts: [shop.example.org], to_service: maintenance-page, to_port: 80}
      - {kind: HTTPRoute, name: partners, to_service: maintenance-page, to_port: 80}
"""

RETURN = r"""
summary:
  description:
    - One line that says what was done, would be done in check mode, or was found.
    - Empty on a failure before that was known.
  returned: always
  type: str
  sample: "sent traffic to the maintenance page: Service shop/web (pods with app=maintenance-page); in flight 0 in 3 pods for 2 s"
evidence:
  description: Short lines that prove the summary, one for each object and for each pod that was asked.
  returned: always
  type: list
  elements: str
  sample:
    - "Service shop/web: selector: app=web -> app=maintenance-page; asked to be in maintenance"
    - "Pod shop/web-5d9c7b-x2x4f: http_requests_in_flight 0 (was 4)"
check_mode:
  description: Whether this was a rehearsal in check mode, so that all else is a prediction.
  returned: always
  type: bool
  sample: false
targets:
  description: The objects as last read, in the order in which they are changed.
  returned: when an object was read
  type: list
  elements: dict
  contains:
    kind:
      description: The kind.
      type: str
    name:
      description: The name.
      type: str
    state:
      description: C(maintenance) where something is saved on it, else C(normal); C(unknown) where what is saved cannot be read.
      type: str
    run:
      description: The run that sent its requests away, while they are.
      type: str
    since:
      description: When that was.
      type: str
    before:
      description: What its routes were before.
      type: dict
    problem:
      description: Why what was saved on it cannot be understood.
      type: str
readings:
  description: What each pod answered last.
  returned: when an object was read
  type: list
  elements: dict
  contains:
    pod:
      description: The pod.
      type: str
    what:
      description: The metric, the field or the path.
      type: str
    met:
      description: Whether it is as it has to be.
      type: bool
    value:
      description: The number, of requests in flight.
      type: float
    detail:
      description: The number or the mistake, in words.
      type: str
run_id:
  description: The run's name, as it is left in what was saved on the objects.
  returned: when the cluster was reached
  type: str
requests:
  description: How many requests were sent to the API server.
  returned: when the cluster was reached
  type: int
plan:
  description: What is changed (in check mode, would be), and why.
  returned: always
  type: list
  elements: dict
blockers:
  description: What stands in the way, who holds it, and what to do about it.
  returned: always
  type: list
  elements: dict
waited:
  description: Seconds spent waiting.
  returned: always
  type: float
error:
  description:
    - The parts of the message (C(object), C(problem), C(next_step)), and whether it was C(refused), that is, before
      this run changed anything.
  returned: failure
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lowtide.ops.plugins.module_utils._common.module import run_module
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.arguments import ACTING_SPEC, CONNECTION_SPEC
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.operations.traffic import run_traffic
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.pod_proxy import KINDS as POD_KINDS
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.routes import KINDS

Spec = dict[str, dict[str, t.Any]]

TARGET: Spec = {
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "name": {"type": "str", "required": True},
    "selector": {"type": "dict"},
    "to_service": {"type": "str"},
    "to_port": {"type": "int"},
    "hosts": {"type": "list", "elements": "str"},
    "paths": {"type": "list", "elements": "str"},
    "canary_weight": {"type": "int"},
}


def describe_place(path: str) -> Spec:
    """Return the options that say which pods are asked, and where."""
    return {
        "kind": {"type": "str", "required": True, "choices": list(POD_KINDS)},
        "name": {"type": "str", "required": True},
        "port": {"type": "str", "required": True},
        "path": {"type": "str", "default": path},
        "scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    }


def main() -> None:
    in_flight: Spec = {
        **describe_place("/metrics"),
        "metric": {"type": "str"},
        "labels": {"type": "dict"},
        "field": {"type": "str"},
        "limit": {"type": "float", "default": 0.0},
    }
    smoke: Spec = {**describe_place("/"), "status": {"type": "int", "default": 200}, "contains": {"type": "str"}}
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_SPEC,
            **ACTING_SPEC,
            "state": {"type": "str", "required": True, "choices": ["maintenance", "normal"]},
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET},
            "in_flight": {"type": "list", "elements": "dict", "default": [], "options": in_flight},
            "in_flight_timeout": {"type": "float", "default": 60.0},
            "quiet_seconds": {"type": "float", "default": 2.0},
            "smoke": {"type": "list", "elements": "dict", "default": [], "options": smoke},
            "smoke_timeout": {"type": "float", "default": 60.0},
            "saved_by": {"type": "str", "choices": ["any", "window"], "default": "any"},
            "guards": {"type": "list", "elements": "str", "choices": ["gitops"], "default": ["gitops"]},
            "assume": {"type": "str", "choices": ["maintenance"]},
        },
        supports_check_mode=True,
    )
    run_module(module, run_traffic)


if __name__ == "__main__":
    main()
