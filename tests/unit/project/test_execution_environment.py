# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An execution environment with this collection: what it asks for is what modules need, and it can be built.

Everything of a build is done here but what takes a container: ansible-builder makes its context, the collection is
installed from it, its requirements are collected and resolved, and bytecode is compiled by the definition's own steps.
"""

from __future__ import annotations

import functools
import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bindep.depends import Depends

from support.checkout import below, load_yaml, module_names, text
from support.execution_environments import (
    PYTHON,
    SYSTEM,
    compile_as_in_the_image,
    find_declared,
    find_packages,
    get_minimum,
    make_collections,
    read_requirements,
    resolve,
    run_builder,
)
from support.modules import CHECKOUT
from support.readme import write_example
from support.tarball import galaxy, run_installed

PLUGINS = "ansible_collections.lowtide.ops.plugins"
DEFINITION = Path("execution-environment.yml")
PAGE = Path("docs/execution-environment.md")
BROUGHT = {"PyYAML": "ansible-core", "botocore": "boto3", "urllib3": "boto3", "certifi": "kubernetes"}
"""Packages that come with another one, which asks for the versions that it can be used with."""
NOT_IMPORTED = {"python-dateutil"}
"""In the requirements for the sake of pip alone."""
ON_HOSTS = {"pgbackrest"}
"""Packages of programs that run on managed hosts, never in the image."""


def read_documentations() -> list[str]:
    """Return the documentation of all modules and fragments."""
    modules = [importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION for name in module_names()]
    fragments = [
        value
        for path in below("plugins/doc_fragments", ".py")
        for value in vars(importlib.import_module(f"{PLUGINS}.doc_fragments.{path.stem}").ModuleDocFragment).values()
        if isinstance(value, str) and "requirements:" in value
    ]
    return modules + fragments


def test_modules_import_what_is_required() -> None:
    """Each library is asked for, or comes with one that is; none is asked for that nobody imports."""
    imported = {name for name in find_packages("require") if name not in BROUGHT}
    asked = {requirement.name for requirement in read_requirements(text(PYTHON)).values()}
    assert asked - NOT_IMPORTED == imported
    assert set(BROUGHT.values()) - {"ansible-core"} <= asked


def test_requirements_are_ranges() -> None:
    """With a lower bound each; nothing is pinned, and ansible-core is not named: the image brings its own."""
    requirements = read_requirements(text(PYTHON))
    assert {name for name, one in requirements.items() if not get_minimum(one)} == set()
    assert {one.operator for requirement in requirements.values() for one in requirement.specifier} <= {">=", "<"}
    assert "ansible-core" not in requirements


def test_modules_declare_the_same_minima() -> None:
    """The line ``requirements`` of each module that names a library has its lower bound."""
    names = {requirement.name: requirement for requirement in read_requirements(text(PYTHON)).values()}
    declared = find_declared(read_documentations(), names.keys() - NOT_IMPORTED)
    assert declared == {name: {get_minimum(names[name])} for name in declared}


def test_other_minima_are_found() -> None:
    """Another one, one that is not said, and names that only begin or end alike."""
    page = "requirements:\n  - psycopg2 (psycopg2-binary) >= 2.8, and boto3\n  - aioboto3 >= 1, boto3-stubs\n"
    assert find_declared([page], ["psycopg2-binary", "boto3"]) == {"psycopg2-binary": {"2.8"}, "boto3": {""}}


def test_readme_says_the_same_ranges() -> None:
    """A row for each."""
    section = text(Path("README.md")).partition("\n## Requirements\n")[2].partition("\n## ")[0]
    rows = "\n".join(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    assert read_requirements(rows) == read_requirements(text(PYTHON))


@functools.cache
def parse_system_packages() -> Depends:
    """Return the rules of bindep, whose parser takes a second."""
    return Depends(text(SYSTEM))


def list_system_packages(platform: str) -> set[str]:
    """Return what bindep would install on a platform."""
    return {rule[0] for rule in parse_system_packages().active_rules(["default", f"platform:{platform}"])}


def test_system_packages_have_the_programs() -> None:
    """Those that modules name in their messages (Debian's names), each with its package for the other platform."""
    assert find_packages("find_program") - ON_HOSTS <= list_system_packages("dpkg")
    assert len(list_system_packages("rpm")) == len(list_system_packages("dpkg"))
    rows = re.findall(r"^\| `.*`.*\| (`[^|]+`) \| (`[^|]+`) \|$", text(PAGE), re.MULTILINE)
    debian, other = (set(re.findall(r"`([^`]+)`", " ".join(column))) for column in zip(*rows, strict=True))
    assert (debian, other) == (list_system_packages("dpkg"), list_system_packages("rpm"))


@pytest.fixture(scope="module")
def collections(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed collection beside kubernetes.core and community.postgresql."""
    return make_collections(tmp_path_factory.mktemp("collections"), installed)


@pytest.fixture(scope="module")
def introspected(collections: Path) -> Path:
    """A folder with what ansible-builder collects from these three: requirements.txt and bindep.txt."""
    run = run_builder(
        *("introspect", collections, "--write-pip", "requirements.txt", "--write-bindep", "bindep.txt"),
        cwd=collections,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "non-PEP508" not in run.stdout + run.stderr
    return collections


def read_from_collection(path: Path, collection: str) -> list[str]:
    """Return the lines that ansible-builder took from a collection."""
    lines = (line.partition("  # from collection ") for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line, _words, source in lines if source == collection]


def test_introspection_finds_both_files(introspected: Path) -> None:
    """As they are, beside those of other collections, and no ansible-core."""
    python = introspected / "requirements.txt"
    assert read_from_collection(python, "kubernetes.core")
    assert read_from_collection(python, "community.postgresql")
    own = read_from_collection(python, "lowtide.ops")
    assert read_requirements("\n".join(own)) == read_requirements(text(PYTHON))
    assert "ansible" not in python.read_text(encoding="utf-8").replace("collection ansible", "")
    system = read_from_collection(introspected / "bindep.txt", "lowtide.ops")
    assert system == [line for line in text(SYSTEM).splitlines() if not line.startswith("#")]


@pytest.mark.registry
def test_requirements_can_be_resolved(introspected: Path, tmp_path: Path) -> None:
    """With those of kubernetes.core and community.postgresql, by pip, and without another ansible-core."""
    chosen = resolve(introspected / "requirements.txt", tmp_path)
    assert read_requirements(text(PYTHON)).keys() <= chosen.keys()
    assert chosen.keys() & {"ansible", "ansible-core", "ansible-base"} == set()


def create_context(definition: Path, tarball: Path) -> Path:
    """Let ansible-builder make the context of a definition that has the tarball beside it."""
    shutil.copy(tarball, definition.parent)
    run = run_builder("create", "--file", definition, "--context", "context", cwd=definition.parent)
    assert run.returncode == 0, run.stdout + run.stderr
    return definition.parent / "context"


@pytest.fixture(scope="module")
def context(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The context of the definition at the root."""
    folder = tmp_path_factory.mktemp("definition")
    return create_context(Path(shutil.copy(CHECKOUT / DEFINITION, folder)), tarball)


def test_context_holds_the_collection(context: Path, tmp_path: Path) -> None:
    """What is installed from it, as in the image, is this version; its file is found by the path that is given."""
    galaxy("install", "-r", "requirements.yml", "-p", tmp_path, "--offline", cwd=context / "_build")
    place = tmp_path / "ansible_collections/lowtide/ops"
    assert (place / "MANIFEST.json").exists()
    assert (place / PYTHON).read_text(encoding="utf-8") == text(PYTHON)


def test_example_of_the_page_is_the_definition(tmp_path: Path) -> None:
    """What users without a checkout are told to write."""
    assert yaml.safe_load(write_example(PAGE, DEFINITION.name, tmp_path).read_text("utf-8")) == load_yaml(DEFINITION)


def merge(definition: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """Put keys into a definition, as the page tells to."""
    return definition | {
        name: merge(definition[name], value) if isinstance(value, dict) and name in definition else value
        for name, value in keys.items()
    }


@pytest.mark.parametrize("name", ["with-others.yml", "other-postgresql.yml"])
def test_other_examples_of_the_page_are_accepted(tarball: Path, tmp_path: Path, name: str) -> None:
    """By ansible-builder's schema, and their entries get into the context."""
    definition = write_example(PAGE, name, tmp_path)
    keys = yaml.safe_load(definition.read_text(encoding="utf-8"))
    definition.write_text(yaml.safe_dump(merge(load_yaml(DEFINITION), keys)), encoding="utf-8")
    build = create_context(definition, tarball) / "_build"
    if name == "with-others.yml":
        wanted = yaml.safe_load((build / "requirements.yml").read_text(encoding="utf-8"))["collections"]
        assert [entry["name"] for entry in wanted][1:] == ["kubernetes.core", "community.postgresql"]
    else:
        assert (build / "exclude-bindep.txt").read_text(encoding="utf-8").split() == ["postgresql"]
        assert "postgresql18" in (build / "bindep.txt").read_text(encoding="utf-8")


def read_steps(context: Path) -> list[str]:
    """Return the steps that compile, as ansible-builder has put them into the recipe of the image."""
    recipe = next(path for path in context.iterdir() if path.name in ("Containerfile", "Dockerfile"))
    return [line for line in recipe.read_text(encoding="utf-8").splitlines() if "-m compileall" in line]


def list_bytecode(folder: Path) -> dict[Path, int]:
    """Return the compiled files below a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.pyc")}


def test_nothing_is_left_to_compile(context: Path, tarball: Path, tmp_path: Path) -> None:
    """Goal P15: after the definition's steps a job finds bytecode of all that it imports, and writes none."""
    galaxy("install", tarball, "--no-deps", "--offline", "-p", tmp_path, cwd=tmp_path)
    steps = read_steps(context)
    assert steps == load_yaml(DEFINITION)["additional_build_steps"]["append_final"]
    compile_as_in_the_image(steps, Path(sys.executable), tmp_path)
    sources = {path for path in tmp_path.rglob("*.py") if "ansible_collections" in path.parts}
    compiled = list_bytecode(tmp_path)
    assert {(path.parent.parent / path.name.partition(".")[0]).with_suffix(".py") for path in compiled} == sources
    inventory = tmp_path / "hosts.yml"
    control = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "window_dir": str(tmp_path)}
    inventory.write_text(
        yaml.safe_dump({"all": {"children": {"control": {"hosts": {"c": control}}}}}), encoding="utf-8"
    )
    run = run_installed(tmp_path, "lowtide.ops.window_status", "-i", str(inventory))
    assert run.rc == 0, run.stdout + run.stderr
    assert list_bytecode(tmp_path) == compiled
