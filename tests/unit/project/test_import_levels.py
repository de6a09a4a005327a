# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Imports inside a package point to a lower level, packages know ``_common``, and hosts get no controller code."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkout import below, text
from support.import_levels import check_levels, check_packages, find_level, package_of

LEVELS = {
    "module_utils._common": [
        ["errors", "redaction", "retry", "text", "timestamps"],
        ["amounts", "bundle", "containers", "dependencies", "outcome"],
        ["caps", "series"],
        ["module"],
    ],
    "module_utils._backup": [
        ["keys", "pipeline"],
        ["manifest", "streams"],
        ["catalogue", "plan", "verify"],
        ["cleaning", "summary"],
        ["run"],
    ],
    "module_utils._pg_backup": [
        ["copy_rows", "held_tables", "programs", "rights"],
        ["database", "dump_rows", "packing"],
        ["making"],
        ["backup"],
        ["entry"],
    ],
    "module_utils._pg_restore": [
        ["evidence", "replication", "side", "sql_text", "summary"],
        ["dump_text", "judging", "swap"],
        ["amcheck"],
        ["compare", "restoring", "rights", "role_statements"],
        ["source"],
        ["work"],
        ["comparing"],
        ["restore"],
        ["drill", "entry"],
        ["drill_entry"],
    ],
    "module_utils._expiry": [["rules"], ["removal"], ["entry"]],
    "module_utils._files": [["listing"], ["entry"]],
    "module_utils._pgbackrest": [
        ["drill_place", "repository"],
        ["plan", "private_server", "program"],
        ["checking"],
        ["operations"],
    ],
    "module_utils._kafka": [
        ["api", "errors", "summary"],
        ["commit", "groups", "parse", "plan", "records"],
        ["protocol", "rpk", "undo", "wait"],
        ["connection"],
        ["group", "reading"],
    ],
    "module_utils._kubernetes": [
        ["arguments", "errors", "fields", "files", "proxies"],
        [
            "patches",
            "quantities",
            "readings",
            "references",
            "resources",
            "routes",
            "saved_state",
            "selectors",
            "temporary_ends",
        ],
        ["certificates", "kubeconfig", "objects", "tiers", "transport"],
        ["credentials", "pod_templates", "streams"],
        ["revisions", "rollout_notes"],
        ["plans.rollout_undo"],
        ["access", "autoscalers", "constraints", "plans", "snapshot"],
        ["client", "silent_nodes"],
        ["cache", "cluster", "conditions", "diagnosis", "job_work", "logs", "reviews", "scaling_constraints"],
        ["scalable", "secrets"],
        [
            "autoscaler_metrics",
            "endpoints",
            "evidence",
            "job_conditions",
            "job_options",
            "pod_proxy",
            "preflight",
            "reasons",
            "rollout_conditions",
            "rollout_summary",
            "summary",
            "wait",
        ],
        ["pod_readings", "rollout_cause", "rollout_guards", "serving", "traffic_summary", "workload_wait"],
        ["verdicts"],
        ["connection_budget"],
        ["scaling"],
        ["operations.rollout_steps"],
        ["operations.rollout_undo"],
        ["operations"],
    ],
    "module_utils._consumers": [["partitions"], ["operations"]],
    "module_utils._credentials": [
        ["certificates", "notes"],
        ["places", "plan"],
        ["clients"],
        ["operations.rotation"],
        ["operations.reversion"],
        ["operations"],
    ],
    "module_utils._metrics": [["limits"], ["prometheus"], ["operations"]],
    "module_utils._mysql": [
        ["definitions", "dump_text", "errors", "events", "findings", "restore_state"],
        ["connection", "manifest"],
        ["exactness", "health", "programs", "schema"],
        ["locks"],
        ["backup", "move"],
        ["restore"],
        ["entry"],
    ],
    "module_utils._patroni": [
        ["state"],
        ["client", "plan"],
        ["unheard"],
        ["arguments", "claims", "moving", "sites", "summary"],
        ["restarting"],
        ["operations"],
    ],
    "module_utils._postgresql": [
        ["errors", "json_values", "names", "pings", "steps", "summary"],
        ["pooler"],
        ["time_limit"],
        ["connection"],
        ["arguments", "catalog", "locks", "logins", "roles"],
        ["bloat", "holders", "unfrozen"],
        ["blockers", "plan"],
        ["integrity"],
        ["plan_indexes", "scope", "worker_pool"],
        ["collations", "reindex", "vacuum"],
        ["assess"],
        ["verify"],
        ["apply"],
        ["operations"],
    ],
    "module_utils._systemd": [
        ["urls"],
        ["units"],
        ["lock", "manager", "probes", "releases"],
        ["memory", "plan", "summary"],
        ["apply"],
        ["ensure"],
    ],
    "module_utils._s3": [["errors"], ["bucket", "connection"], ["versions"]],
    "plugin_utils._window": [
        [
            "containers",
            "declaration",
            "events",
            "files",
            "inputs",
            "options",
            "processes",
            "schedule",
            "version",
            "watch",
        ],
        ["journal", "lease", "part_copies", "preload", "renewal", "results", "state"],
        ["rules", "store"],
        ["report", "store_file", "store_kubernetes", "store_postgresql"],
        ["occurrences", "places", "report_html", "report_text", "verdict"],
        ["renewer", "request", "session"],
        ["approval", "restoring", "succession"],
        ["closing", "engine", "opening", "status"],
        ["ansible_context"],
    ],
}
"""Every package, lowest level first. A directory of modules is one entry. An entry may be there before its file is."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""Imports that point upwards today, with what is to be done about them."""

COMPOSES = {
    "module_utils._backup": {"module_utils._s3"},
    "module_utils._consumers": {"module_utils._kafka", "module_utils._kubernetes"},
    "module_utils._credentials": {"module_utils._kubernetes", "module_utils._postgresql"},
    "module_utils._expiry": {"module_utils._backup", "module_utils._s3"},
    "module_utils._mysql": {"module_utils._backup", "module_utils._s3"},
    "module_utils._pg_backup": {"module_utils._backup", "module_utils._postgresql", "module_utils._s3"},
    "module_utils._pg_restore": {
        "module_utils._backup",
        "module_utils._pg_backup",
        "module_utils._postgresql",
        "module_utils._s3",
    },
    "plugin_utils._window": {"module_utils._kubernetes", "module_utils._postgresql"},
    "module_utils._pgbackrest": {"module_utils._backup", "module_utils._pg_restore", "module_utils._postgresql"},
}
"""Packages that know others than ``_common``, because their work is to bring systems together."""


def module_name(path: Path) -> str:
    """The name of a file below plugins/."""
    return ".".join(path.relative_to("plugins").with_suffix("").parts).removesuffix(".__init__")


PLUGINS = {module_name(path): text(path) for path in below("plugins", ".py")}
PACKAGED = [name for name in PLUGINS if name.split(".")[0] in {"module_utils", "plugin_utils"} and name.count(".") > 1]


@pytest.mark.parametrize("module", PACKAGED)
def test_imports_point_to_a_lower_level(module: str) -> None:
    """Under TYPE_CHECKING and inside functions too."""
    findings = check_levels(PLUGINS[module], module, LEVELS)
    assert [message for entry, message in findings if (module, entry) not in EXCEPTIONS] == []


@pytest.mark.parametrize("module", PLUGINS)
def test_packages_know_only_what_they_compose(module: str) -> None:
    """And nothing that may run on a host imports the controller's code."""
    assert [message for _package, message in check_packages(PLUGINS[module], module, COMPOSES)] == []


def test_no_exception_is_left_over() -> None:
    """An import that was mended, and a package that no longer composes another, go from their tables."""
    upward = {
        (module, entry) for module in PACKAGED for entry, _message in check_levels(PLUGINS[module], module, LEVELS)
    }
    assert [key for key in EXCEPTIONS if key not in upward] == []
    composed = {
        (package_of(module), package)
        for module in PACKAGED
        for package, _message in check_packages(PLUGINS[module], module, {})
    }
    assert [(key, name) for key, names in COMPOSES.items() for name in names if (key, name) not in composed] == []


TABLE = {"module_utils._x": [["errors", "fields"], ["plans"], ["client"]]}


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("errors", "from .client import f", "1: errors (level 0) imports client (level 2)"),
        ("errors", "from . import client", "1: errors (level 0) imports client (level 2)"),
        ("errors", "from .fields import f", "1: errors (level 0) imports fields (level 0)"),
        ("plans.stop", "from ..client import f", "1: plans (level 1) imports client (level 2)"),
        ("plans.stop", "from .start import f", "1: plans (level 1) imports plans (level 1)"),
        (
            "errors",
            "if t.TYPE_CHECKING:\n    from .client import Client",
            "2: errors (level 0) imports client (level 2)",
        ),
        ("errors", "def f():\n    from .client import g", "2: errors (level 0) imports client (level 2)"),
        (
            "errors",
            "from ansible_collections.lowtide.ops.plugins.module_utils._x.client import f",
            "1: errors (level 0) imports client (level 2)",
        ),
        (
            "errors",
            "import ansible_collections.lowtide.ops.plugins.module_utils._x.client",
            "1: errors (level 0) imports client (level 2)",
        ),
        ("fields", "from .fieldset import f", "1: module_utils._x.fieldset.f has no level: add it to LEVELS"),
        ("unknown", "", "module_utils._x.unknown has no level: add it to LEVELS"),
    ],
)
def test_an_import_that_does_not_point_downwards_is_found(module: str, source: str, message: str) -> None:
    """However it is written."""
    assert [found for _entry, found in check_levels(source, f"module_utils._x.{module}", TABLE)] == [message]


@pytest.mark.parametrize(
    "source",
    [
        "from .errors import f",
        "from . import plans",
        "from .plans.stop import f",
        "from .._y.client import f",
        "import os",
    ],
)
def test_an_import_that_points_downwards_or_elsewhere_is_none_of_levels(source: str) -> None:
    """Other packages are the other rule's."""
    assert list(check_levels(source, "module_utils._x.client", TABLE)) == []


@pytest.mark.parametrize(
    ("module", "source", "package"),
    [
        ("module_utils._x.client", "from .._y.client import f", "module_utils._y"),
        ("module_utils._x.plans.stop", "from ..._y import client", "module_utils._y"),
        ("module_utils._x.client", "from ...plugin_utils._y import f", "plugin_utils._y"),
        ("modules.x", "from ansible_collections.lowtide.ops.plugins.plugin_utils._y import f", "plugin_utils._y"),
        ("modules.x", "from ..action import window", "action.window"),
        ("plugin_utils._x.engine", "from ...module_utils._y.client import f", "module_utils._y"),
    ],
)
def test_an_import_of_a_foreign_package_is_found(module: str, source: str, package: str) -> None:
    """Unless it is composed."""
    assert [name for name, _message in check_packages(source, module, {})] == [package]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("module_utils._x.client", "from .._common.errors import f"),
        ("module_utils._x.client", "from .._z.client import f"),
        ("plugin_utils._x.engine", "from ...module_utils._common.errors import f"),
        ("plugin_utils._x", "from ..module_utils._y.client import f"),
        ("action.x", "from ansible_collections.lowtide.ops.plugins.plugin_utils._y.engine import f"),
        ("modules.x", "from ansible_collections.lowtide.ops.plugins.module_utils._y.engine import f"),
    ],
)
def test_an_import_of_a_known_package_is_allowed(module: str, source: str) -> None:
    """What is shared, what is composed, and everything from a plugin or module itself."""
    assert list(check_packages(source, module, {"module_utils._x": {"module_utils._z"}})) == []


def test_the_longest_entry_gives_the_level() -> None:
    """A directory may be one entry, and a file in it another."""
    table = {"module_utils._x": [["plans.base"], ["plans"]]}
    assert find_level("module_utils._x.plans.base.f", table) == ("plans.base", 0)
    assert find_level("module_utils._x.plans.stop", table) == ("plans", 1)
