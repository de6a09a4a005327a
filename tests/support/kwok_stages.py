# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What KWOK does to a node and its pods, as its kinds ``Stage``: ready at once, and gone as soon as it is deleted."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NODE_STATUS = """
{{ $now := Now }}
conditions:
- type: Ready
  status: "True"
  reason: KubeletReady
  message: KWOK plays this node
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
"""
POD_STATUS = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
- type: Initialized
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
- type: ContainersReady
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
- type: Ready
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  started: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}
{{ end }}
"""
READY = '.status.conditions.[] | select( .type == "Ready" ) | .status'
DELETED = ".metadata.deletionTimestamp"


def describe_stage(kind: str, name: str, conditions: list[Json], following: Json) -> Json:
    """Return a Stage of a kind of the core API: what becomes of an object when the conditions hold."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": conditions},
            "next": following,
        },
    }


STAGES = [
    describe_stage(
        "Node",
        "node-ready",
        [{"key": READY, "operator": "NotIn", "values": ["True"]}],
        {"statusTemplate": NODE_STATUS},
    ),
    describe_stage(
        "Pod",
        "pod-ready",
        [
            {"key": DELETED, "operator": "DoesNotExist"},
            {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
        ],
        {"statusTemplate": POD_STATUS},
    ),
    describe_stage("Pod", "pod-gone", [{"key": DELETED, "operator": "Exists"}], {"delete": True}),
]
