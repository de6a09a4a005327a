# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kubeconfigs, plugins and certificates as tests of access make them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.access import ClusterAccess, resolve_access

Json = dict[str, Any]
EXEC_API = "client.authentication.k8s.io/v1"


def make_document(*, cluster: Json | None = None, user: Json | None = None, context: Json | None = None) -> Json:
    """A kubeconfig with one context, ``demo``."""
    return {
        "current-context": "demo",
        "contexts": [{"name": "demo", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
    }


def write_kubeconfig(folder: Path, name: str = "config", **parts: Json | None) -> str:
    """The same in a file."""
    return write_text(folder / name, yaml.safe_dump(make_document(**parts)))


def write_text(path: Path, text: str) -> str:
    """A file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def resolve(folder: Path, options: Json | None = None, environ: Mapping[str, str] | None = None) -> ClusterAccess:
    """The access in a home folder of the test's own, outside of a pod."""
    environment = {"HOME": str(folder), **(environ or {})}
    return resolve_access(options or {}, environ=environment, in_pod_root=str(folder / "no-pod"))


def read_authorization(access: ClusterAccess, *, renew: bool = False) -> str:
    """What is sent to say who we are."""
    return access.credentials(renew).get("Authorization", "")


def make_plugin(folder: Path, status: Json | None = None, *, code: str = "", name: str = "plugin") -> Json:
    """A user with an exec plugin: a real program that prints a status, or runs ``code``."""
    answer = json.dumps({"apiVersion": EXEC_API, "kind": "ExecCredential", "status": status or {}})
    program = f"#!{sys.executable}\nimport os, sys, json, time, pathlib\n{code or f'print({answer!r})'}\n"
    path = Path(write_text(folder / name, program))
    path.chmod(0o755)
    return {"exec": {"apiVersion": EXEC_API, "command": str(path), "interactiveMode": "Never"}}


def make_certificate(folder: Path, name: str, *arguments: str) -> tuple[str, str]:
    """A certificate and its key, made by openssl."""
    certificate, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"]
    command += ["-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *(arguments or ("-noenc",))]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
