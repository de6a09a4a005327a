# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``lab up|down|facts|status|install|shell|run``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from labkit import ansible_versions, machine, network, operations, packages
from labkit.component import discover
from labkit.errors import LabError
from labkit.lab import Lab

PRIVATE = ("KUBECONFIG", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
PRIVATE_PREFIXES = ("PG", "AWS_", "KAFKA_", "RPK_", "ANSIBLE_", "K8S_AUTH_", "LOWTIDE_LAB_")
"""What a person may have set for other servers must not reach a command that is meant for the lab."""


def environment(lab: Lab, given: dict[str, str]) -> dict[str, str]:
    """The environment of a command inside the lab."""
    kept = {key: value for key, value in given.items() if key not in PRIVATE and not key.startswith(PRIVATE_PREFIXES)}
    kept["PATH"] = f"{lab.cache / 'venv' / 'bin'}:{given.get('PATH', os.defpath)}"
    kept["LOWTIDE_LAB"] = lab.name
    kept["LOWTIDE_CACHE"] = str(lab.cache)
    kept["LOWTIDE_LAB_FACTS"] = str(lab.facts_file)
    return kept


def inside(lab: Lab, command: list[str]) -> None:
    """Become ``command`` inside the lab's network."""
    lab.facts()
    if not lab.network.exists():
        raise LabError(
            obj=f"lab {lab.name}", problem="its network namespace is gone", next_step="Run `tests/lab/lab up`"
        )
    network.enter(lab.netns)
    try:
        os.execvpe(command[0], command, environment(lab, dict(os.environ)))
    except FileNotFoundError as error:
        raise LabError(
            obj=f"command {command[0]}", problem="there is no such program", next_step="Check its name"
        ) from error


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="lab", description="Real servers in a network of their own. LOWTIDE_LAB names the lab (default: main)."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("install", "download and build what the components need"),
        ("up", "install and start components (default: all) and wait until they serve"),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("components", nargs="*", metavar="COMPONENT")
    verbs.add_parser("check", help="say what this machine lacks")
    verbs.add_parser("tools", help="have the Python environments of the locked requirements")
    verbs.add_parser("lock", help="renew the locks of Python requirements from their .in files")
    verbs.add_parser("down", help="stop everything and leave nothing behind")
    verbs.add_parser("facts", help="print endpoints, credential files and identities as JSON")
    verbs.add_parser("status", help="list components and processes")
    verbs.add_parser("shell", help="a shell inside the lab's network")
    run = verbs.add_parser("run", help="one command inside the lab's network: lab run -- CMD ARG...")
    run.add_argument("command", nargs="+", metavar="CMD")
    return parser.parse_args(arguments)


def act(lab: Lab, options: argparse.Namespace) -> None:
    """Do what the command line says."""
    if options.verb == "facts":
        print(json.dumps(lab.facts(), indent=2))
    elif options.verb == "status":
        operations.status(lab, discover())
    elif options.verb == "shell":
        inside(lab, [os.environ.get("SHELL", "/bin/bash")])
    elif options.verb == "run":
        inside(lab, options.command)
    elif options.verb == "down":
        operations.down(lab, discover())
    elif options.verb == "lock":
        lock(lab)
    elif options.verb == "tools":
        install_tools(lab)
    else:
        machine.check(lab)
        if options.verb == "check":
            lab.say("this machine can run the lab")
        elif options.verb == "install":
            operations.install(lab, discover(), options.components)
        else:
            operations.up(lab, discover(), options.components)


def install_tools(lab: Lab) -> None:
    """Have the locked environments: that of the tests, and one for each other version of ansible-core."""
    if packages.python_environment_is_current(lab) and ansible_versions.are_installed(lab):
        return
    machine.check(lab)
    packages.base(lab)
    ansible_versions.install(lab)


def lock(lab: Lab) -> None:
    """Renew all locks from their .in files."""
    for source in ("tests/requirements.in", "tests/requirements-test.in"):
        packages.lock_requirements(lab, source, python=packages.SYSTEM_PYTHON)
    ansible_versions.lock(lab)


def main() -> int:
    """Entry point; the exit code."""
    options = parse(sys.argv[1:])
    os.umask(0o022)  # daemons that run as another user must reach their files
    try:
        lab = Lab(
            os.environ.get("LOWTIDE_LAB", "main"),
            cache=packages.cache(),
            states=Path("/var/lib/lowtide-lab"),
        )
        act(lab, options)
    except LabError as error:
        sys.stderr.write(f"lab: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
