# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which own modules a plugin file imports, and whether it may: lower levels of its package, and few other packages.

Modules are named by their path below ``plugins/``: ``module_utils._kafka.plan``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

ABSOLUTE = "ansible_collections.lowtide.ops.plugins."
SHARED = "module_utils._common"
"""The package that every other one may import."""
CONTROLLER = ("plugin_utils", "action", "filter")
"""What runs in ansible-playbook's process only: nothing that is sent to a host may import it."""

Levels = Mapping[str, Sequence[Sequence[str]]]
"""For each package its modules, or directories of modules, lowest level first."""


def own_imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Find the line and the full name of everything of this collection that ``module`` imports, at whatever place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, *filter(None, [node.module])])
            elif base.startswith(ABSOLUTE):
                base = base.removeprefix(ABSOLUTE)
            else:
                continue
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(ABSOLUTE):
                    yield node.lineno, alias.name.removeprefix(ABSOLUTE)


def package_of(module: str) -> str:
    """Name the package: ``module_utils._kafka`` for everything in it."""
    return ".".join(module.split(".")[:2])


def find_level(module: str, levels: Levels) -> tuple[str, int] | None:
    """Return the entry of the table that covers the module, and its level; None when there is none."""
    package = package_of(module)
    inside = module.removeprefix(f"{package}.")
    entries = {entry: level for level, names in enumerate(levels.get(package, ())) for entry in names}
    covering = [entry for entry in entries if f"{inside}.".startswith(f"{entry}.")]
    if not covering:
        return None
    entry = max(covering, key=len)
    return entry, entries[entry]


def check_levels(source: str, module: str, levels: Levels) -> Iterator[tuple[str, str]]:
    """Find imports inside the module's package that do not point to a lower level: what is imported, and a message."""
    package = package_of(module)
    own = find_level(module, levels)
    if own is None:
        yield "", f"{module} has no level: add it to LEVELS"
        return
    for line, name in own_imports(source, module):
        if package_of(name) != package:
            continue
        other = find_level(name, levels)
        if other is None:
            yield "", f"{line}: {name} has no level: add it to LEVELS"
        elif other[1] >= own[1]:
            yield other[0], f"{line}: {own[0]} (level {own[1]}) imports {other[0]} (level {other[1]})"


def check_packages(source: str, module: str, composes: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Find imports of packages that the module may not know: the package imported, and a message."""
    package = package_of(module)
    kind = module.partition(".")[0]
    is_package = module.count(".") > 1
    for line, name in own_imports(source, module):
        other = package_of(name)
        if other in {package, SHARED}:
            continue
        if other.partition(".")[0] in CONTROLLER and kind not in CONTROLLER:
            yield other, f"{line}: {module} may run on a host and imports {other}, which is the controller's"
        elif is_package and other not in composes.get(package, set()):
            yield other, f"{line}: package {package} imports {other}, which is not in its line of COMPOSES"
