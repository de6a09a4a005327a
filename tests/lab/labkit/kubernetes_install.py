# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs and basic images of the lab's Kubernetes, brought into the cache once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from labkit import kubernetes_config as config
from labkit import kubernetes_images as images
from labkit import packages
from labkit.lab import Lab

VERSION = "1.35.8"
SOURCE = Path(__file__).resolve().parents[1] / "build/kubernetes"
DEBIAN = ("runc", "containernetworking-plugins", "openssl")
BUSYBOX_TAGS = ("1.0.0", "1.1.0")


def binaries(lab: Lab) -> Path:
    """kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl: built once from the locked modules."""
    target = lab.cache / f"kubernetes-{VERSION}"
    if target.is_dir():
        return target
    environment = packages.go_environment(lab)
    go = packages.go_binary(lab)
    listing = [str(go), "list", "-deps", "tool"]
    lab.build("kubernetes: download its Go modules", listing, env=environment, cwd=SOURCE)
    total = len(lab.run_outside(listing, env=environment, cwd=SOURCE).stdout.splitlines())
    major, minor, _patch = VERSION.split(".")
    stamps = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
    flags = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        flags += [part for name, value in stamps.items() for part in ("-X", f"{package}.{name}={value}")]
    partial = lab.cache / f".kubernetes-{VERSION}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    numbered = ["/usr/bin/python3", "-IS", str(Path(__file__).with_name("numbered.py")), str(total), "--"]
    build = [str(go), "build", "-v", "-p", "2", "-ldflags", " ".join(flags), "-o", f"{partial}/", "tool"]
    lab.build(f"kubernetes {VERSION}: go build (6 min on 2 cores)", [*numbered, *build], env=environment, cwd=SOURCE)
    partial.rename(target)
    return target


def containerd(lab: Lab) -> Path:
    """The root that Debian 13's containerd (1.7) was unpacked to."""
    return packages.trixie_deb(lab, "containerd")


def unpack(lab: Lab, tree: Path, names: Sequence[str]) -> None:
    """Unpack Debian packages of this machine's release into ``tree``, without installing them."""
    place = lab.cache / "deb"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    quiet = ["-o", "APT::Sandbox::User=root", "-o", "Dir::Cache::archives=."]
    lab.build(f"apt-get download {' '.join(names)}"[:100], ["apt-get", *quiet, "download", *names], cwd=place)
    tree.mkdir(parents=True, exist_ok=True)
    for archive in sorted(place.glob("*.deb")):
        packages.command(["dpkg-deb", "-x", str(archive), str(tree)])
    shutil.rmtree(place)


def basic_images(lab: Lab) -> Path:
    """Archive of the pause image and of a tiny image with a shell, the latter under two tags with different content."""
    target = lab.cache / "images" / "basic-1.tar"
    if target.exists():
        return target
    with lab.locked("images"):
        tree = target.with_name(".basic")
        shutil.rmtree(tree, ignore_errors=True)
        unpack(lab, tree, ["catatonit", "busybox-static"])
        archive = images.Archive()
        pause = tree / "pause"
        (pause / "bin").mkdir(parents=True)
        (tree / "usr/bin/catatonit").rename(pause / "bin/catatonit")
        pausing = images.Image(config.SANDBOX_IMAGE, ("/bin/catatonit", "-P"), user="65535:65535")
        archive.add(pausing, [images.layer(pause)])
        shell = tree / "shell"
        (shell / "bin").mkdir(parents=True)
        (shell / "tmp").mkdir()
        (shell / "tmp").chmod(0o1777)
        (tree / "bin/busybox").rename(shell / "bin/busybox")
        for applet in packages.command([str(shell / "bin/busybox"), "--list"]).split():
            if applet != "busybox":
                (shell / "bin" / applet).symlink_to("busybox")
        base = images.layer(shell)
        for tag in BUSYBOX_TAGS:
            mark = tree / tag / "etc"
            mark.mkdir(parents=True)
            (mark / "release").write_text(f"{tag}\n")
            image = images.Image(f"localhost/busybox:{tag}", ("/bin/sleep", "infinity"), labels={"version": tag})
            archive.add(image, [base, images.layer(tree / tag)])
        archive.write(target)
        shutil.rmtree(tree)
    return target
