# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that Kubernetes modules share. Private to lowtide.ops: do not import from other collections.

They are documented by the fragment ``lowtide.ops._kubernetes``.
"""

from __future__ import annotations

import typing as t

# For ``argument_spec={**CONNECTION_SPEC, ...}``; mirrors doc_fragments/_kubernetes.py.
CONNECTION_SPEC: dict[str, dict[str, t.Any]] = {
    "kubeconfig": {"type": "raw", "no_log": True},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool"},
    "tls_server_name": {"type": "str"},
    "proxy": {"type": "str"},
    "no_proxy": {"type": "str"},
    "impersonate_user": {"type": "str"},
    "impersonate_groups": {"type": "list", "elements": "str"},
    "cluster_uid": {"type": "str"},
}

# What every module that waits and writes takes besides; documented by the same fragment's ACTING part.
ACTING_SPEC: dict[str, dict[str, t.Any]] = {
    "namespace": {"type": "str", "required": True},
    "timeout": {"type": "float", "default": 300.0},
    "failure_grace_factor": {"type": "float", "default": 1.0},
    "run_id": {"type": "str"},
}

CONNECTION_BUDGET_SPEC: dict[str, dict[str, t.Any]] = {
    "max_connections": {"type": "int", "required": True},
    "limited_by": {"type": "str", "default": "max_connections"},
    "pool_per_replica": {"type": "int", "required": True},
    "used_by_others": {"type": "int", "default": 0},
    "reserved": {"type": "int", "default": 0},
    "shared_with": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "kind": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "api_version": {"type": "str"},
            "plural": {"type": "str"},
            "pool_per_replica": {"type": "int", "required": True},
            "replicas": {"type": "int"},
        },
    },
}

# What every module that scales one workload takes besides; documented by the same fragment's SCALING part.
SCALING_SPEC: dict[str, dict[str, t.Any]] = {
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "api_version": {"type": "str"},
    "plural": {"type": "str"},
    "autoscaler": {"type": "str", "choices": ["refuse", "adjust", "restore"], "default": "refuse"},
    "connection_budget": {"type": "dict", "options": CONNECTION_BUDGET_SPEC},
    "start_stopped": {"type": "bool", "default": False},
    "allow_volume_deletion": {"type": "bool", "default": False},
    "assume": {"type": "str", "choices": ["stopped"]},
}
