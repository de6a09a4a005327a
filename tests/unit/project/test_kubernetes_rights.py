# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rights that the documentation gives an account: each Role is named where it is said how Roles are bound."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

RIGHTS = Path(__file__).parents[3] / "docs/kubernetes-rights.yml"


def test_how_to_bind_names_every_role() -> None:
    """Those of a namespace by a RoleBinding, those of the cluster by a ClusterRoleBinding; and no other."""
    text = RIGHTS.read_text(encoding="utf-8")
    namespaced, of_cluster = text.partition("apiVersion:")[0].split("kubectl create clusterrolebinding")
    named = {
        kind: set(re.findall(r"^#   (lowtide[a-z-]*)  ", part, re.MULTILINE))
        for kind, part in (("Role", namespaced), ("ClusterRole", of_cluster))
    }
    items = yaml.safe_load(text)["items"]
    assert named == {
        kind: {item["metadata"]["name"] for item in items if item["kind"] == kind} for kind in ("Role", "ClusterRole")
    }
