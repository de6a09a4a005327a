# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs on managed hosts runs with the oldest Python that ansible-core supports there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

OLDEST = (3, 8)
ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "ansible_collections.lowtide.ops."
ENTRIES = tuple(
    f"plugins/modules/{name}.py"
    for name in ("systemd_units", "file_expiry", "pgbackrest_backup", "pgbackrest_restore_drill")
)
"""Modules whose tasks run on managed hosts, and not where the control host is."""
NEWER = {"removeprefix", "removesuffix", "cache", "pairwise", "UTC", "is_relative_to", "readlink_to", "bit_count"}
KEYWORDS = {
    *("pipesize", "process_group", "encoding_errors", "delete_on_close", "onexc", "cancel_futures", "usedforsecurity"),
    *("slots", "kw_only", "match_args", "weakref_slot", "root_dir", "include_hidden"),
}
"""Of functions that every Python has, arguments that the oldest has not."""
FUNCTION_KEYWORDS = {"zip": {"strict"}, "write_text": {"newline"}, "rmtree": {"dir_fd"}, "Popen": {"user", "umask"}}
"""As KEYWORDS, where other functions have had one of that name for longer."""
GENERICS = {"dict", "list", "set", "tuple", "type", "frozenset"}


def walk_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but those that only a type checker comes to."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def list_imports(path: Path, tree: ast.AST) -> Iterator[Path]:
    """Yield the files of this collection that a file imports."""
    for node in walk_at_run_time(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = path.parents[node.level - 1] / (node.module or "").replace(".", "/")
        elif node.module and node.module.startswith(PACKAGE):
            base = ROOT / node.module.removeprefix(PACKAGE).replace(".", "/")
        else:
            continue
        for candidate in [base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)]:
            if candidate.is_file():
                yield candidate


def list_files() -> list[Path]:
    """Return the entries and all that they import, directly or not."""
    pending = [ROOT / entry for entry in ENTRIES]
    files: list[Path] = []
    while pending:
        path = pending.pop()
        if path not in files:
            files.append(path)
            pending += list_imports(path, ast.parse(path.read_text()))
    return sorted(files)


def drop_annotations(tree: ast.AST) -> ast.AST:
    """Return a tree without annotations, which nothing evaluates."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return tree


def walk_in_the_oldest(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but those that only a newer Python comes to."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("sys.version_info >="):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def list_newer_keywords(call: ast.Call) -> list[str]:
    """Return the arguments of a call, by their names, that the oldest Python does not know."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    newer = KEYWORDS | FUNCTION_KEYWORDS.get(name, set())
    return [keyword.arg for keyword in call.keywords if keyword.arg in newer]


def is_union_of_sets_or_flags(left: ast.expr, right: ast.expr) -> bool:
    """Return whether an ``|`` is one that every Python has; that of dictionaries and types is newer."""
    return any(
        isinstance(side, ast.Set | ast.SetComp)
        or (
            isinstance(side, ast.Attribute)
            and isinstance(side.value, ast.Name)
            and side.value.id in {"re", "os", "fcntl"}
        )
        for side in (left, right)
    )


def find_newer(source: str) -> list[str]:
    """Return what a source has that the oldest Python has not, with its lines."""
    try:
        tree = drop_annotations(ast.parse(source, feature_version=OLDEST))
    except SyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    found: list[str] = []
    for node in walk_in_the_oldest(tree):
        words = ""
        if isinstance(node, ast.Call) and (keywords := list_newer_keywords(node)):
            words = f"{ast.unparse(node.func)}({', '.join(keywords)}=)"
        elif isinstance(node, ast.Attribute) and node.attr in NEWER:
            words = node.attr
        elif isinstance(node, ast.ImportFrom) and any(alias.name in NEWER for alias in node.names):
            words = f"import from {node.module}"
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in GENERICS:
            words = f"{node.value.id}[...] at run time"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            words = "" if is_union_of_sets_or_flags(node.left, node.right) else "| of dictionaries or types"
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            words = "" if is_union_of_sets_or_flags(node.target, node.value) else "|= of dictionaries"
        if words:
            found.append(f"{getattr(node, 'lineno', 0)}: {words}")
    return found


def list_names() -> list[str]:
    """Return the files by their places in the collection."""
    return [str(path.relative_to(ROOT)) for path in list_files()]


@pytest.mark.parametrize("name", list_names())
def test_no_newer_python_is_needed(name: str) -> None:
    """Neither its syntax nor its library."""
    source = (ROOT / name).read_text()
    assert "from __future__ import annotations" in source
    assert find_newer(source) == []


@pytest.mark.parametrize("name", [name for name in list_names() if "module_utils" in name])
def test_no_newer_pattern_is_needed(name: str) -> None:
    """Possessive quantifiers and atomic groups are of Python 3.11."""
    module = importlib.import_module(PACKAGE + name.removesuffix(".py").replace("/", "."))
    parse = importlib.import_module("re._parser").parse
    for variable, value in vars(module).items():
        if isinstance(value, re.Pattern):
            parsed = repr(parse(value.pattern, value.flags & ~re.UNICODE))
            assert "POSSESSIVE" not in parsed, variable
            assert "ATOMIC" not in parsed, variable


def test_the_imports_are_followed() -> None:
    """The check looks at what the module is made of."""
    names = list_names()
    places = (
        *("_systemd/units.py", "_systemd/lock.py", "_common/redaction.py", "_common/module.py"),
        *("_pgbackrest/plan.py", "_backup/pipeline.py", "_pg_restore/judging.py", "_postgresql/connection.py"),
    )
    for place in places:
        assert f"plugins/module_utils/{place}" in names
    assert "plugins/module_utils/_s3/bucket.py" not in names, "it is imported for its types only"


@pytest.mark.parametrize(
    "source",
    [
        "zip(a, b, strict=True)",
        "match a:\n    case 1: pass",
        "with (open(a) as b, open(c) as d): pass",
        "isinstance(a, int | str)",
        "a = b | {'x': 1}",
        "a |= b",
        "'a'.removeprefix('b')",
        "import functools\n@functools.cache\ndef f(): pass",
        "from datetime import UTC",
        "kind = dict[str, int]",
        "start(pipesize=1)",
        "@dataclass(slots=True)\nclass A: pass",
        "path.write_text('a', newline='')",
        "if sys.version_info >= (3, 10):\n    pass\nelse:\n    start(pipesize=1)",
    ],
)
def test_what_is_newer_is_found(source: str) -> None:
    """Each kind of it."""
    assert find_newer(source)


def test_what_only_a_newer_python_comes_to_may_be_newer() -> None:
    """As the larger pipes of pipeline.py."""
    assert find_newer("if sys.version_info >= (3, 10):\n    start(pipesize=1)") == []
