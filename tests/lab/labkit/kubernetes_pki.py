# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates and kubeconfigs of the lab's own Kubernetes cluster."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Run = Callable[[list[str]], object]
"""Runs an argument list and raises when it fails."""

DAYS = 3650
REQUEST = "[req]\ndistinguished_name = name\n[name]\n"
"""An openssl configuration that adds no extension of its own."""


@dataclass(frozen=True)
class Subject:
    """Whom a certificate is for: file name, common name, organisation, subject alternative names."""

    file: str
    common_name: str
    organisation: str = ""
    names: tuple[str, ...] = ()

    def text(self) -> str:
        """The subject as openssl wants it."""
        organisation = f"/O={self.organisation}" if self.organisation else ""
        return f"{organisation}/CN={self.common_name}"


class Pki:
    """Keys and certificates in ``folder``; a file that exists is kept."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self._run = run

    def key(self, name: str) -> Path:
        """The private key of ``name``."""
        return self.folder / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """The certificate of ``name``."""
        return self.folder / f"{name}.crt"

    def create(self, subjects: Sequence[Subject]) -> None:
        """Make what is missing: the authority ``ca``, the service account pair ``sa``, a pair for each subject."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._configuration.write_text(REQUEST)
        self._certify(Subject("ca", "lowtide-lab-ca"), signer=[], usage=["basicConstraints=critical,CA:TRUE"])
        signer = ["-CA", str(self.certificate("ca")), "-CAkey", str(self.key("ca"))]
        for subject in subjects:
            usage = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
            if subject.names:
                usage.append(f"subjectAltName={','.join(subject.names)}")
            self._certify(subject, signer=signer, usage=usage)
        public = self.folder / "sa.pub"
        if not public.exists():
            key = str(self.key("sa"))
            self._run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key])
            partial = public.with_suffix(".partial")
            self._run(["openssl", "pkey", "-in", key, "-pubout", "-out", str(partial)])
            partial.replace(public)

    @property
    def _configuration(self) -> Path:
        return self.folder / "openssl.cnf"

    def _certify(self, subject: Subject, *, signer: list[str], usage: list[str]) -> None:
        certificate = self.certificate(subject.file)
        if certificate.exists():
            return
        partial = certificate.with_suffix(".partial")
        extensions = [part for extension in usage for part in ("-addext", extension)]
        self._run(
            [
                *["openssl", "req", "-x509", "-config", str(self._configuration), "-subj", subject.text()],
                *["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", str(DAYS)],
                *["-keyout", str(self.key(subject.file)), "-out", str(partial), *signer, *extensions],
            ]
        )
        partial.replace(certificate)

    def kubeconfig(self, name: str, *, server: str, context: str) -> str:
        """A self-contained kubeconfig for the subject ``name`` with one context."""

        def data(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        return f"""\
apiVersion: v1
kind: Config
current-context: {context}
clusters:
- name: {context}
  cluster:
    server: {server}
    certificate-authority-data: {data(self.certificate("ca"))}
contexts:
- name: {context}
  context: {{cluster: {context}, user: {name}}}
users:
- name: {name}
  user:
    client-certificate-data: {data(self.certificate(name))}
    client-key-data: {data(self.key(name))}
"""
