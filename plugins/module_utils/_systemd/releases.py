# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases behind a symbolic link: read, switched in one step, put back.

Private to lowtide.ops: do not import from other collections.

Before a link is switched, what it pointed at is kept in a second link beside it, ``LINK.lowtide-previous``. It is
removed once the new release has served, so as long as it is there the new release is not known to be good.
"""

from __future__ import annotations

import errno
import os
import typing as t

from .._common.errors import OpsError, Refusal
from .units import Release, Unit

SUFFIX = ".lowtide-previous"
NEXT_STEPS = {
    errno.EROFS: "See in the kernel's log why it is read-only, mend that, and remount it: mount -o remount,rw",
    errno.ENOSPC: "Make room on its file system: `df -h {folder}`, `df -i {folder}`",
    errno.EDQUOT: "Make room in the quota of this account: `df -h {folder}`, `quota`",
    errno.EACCES: "Give this account the right to write to {folder}, or set ansible_become for the host",
    errno.EPERM: "See who forbids it: `lsattr -d {folder}`, and the sticky bit in `ls -ld {folder}`",
}
"""What to do about an error of the system by its number."""


class LinkState(t.NamedTuple):
    """Where a link points, since when (seconds since the epoch), and the release that was known to be good before."""

    target: str
    switched: float
    previous: str


def read_link(release: Release) -> LinkState:
    """Return the state of a link. Refuse one that is missing or no link, and a release that is not there."""
    if not os.path.islink(release.link):
        kind = "it is no symbolic link" if os.path.lexists(release.link) else "it does not exist"
        raise Refusal(
            obj=f"release link {release.link}",
            problem=kind,
            next_step="Make it once, pointing at the release that runs: ln -s FOLDER LINK",
        )
    if not os.path.isdir(release.target):
        raise Refusal(
            obj=f"release {release.target}",
            problem="there is no such folder on this host",
            next_step="Bring the release to the host first, then run this again",
        )
    folder = os.path.dirname(release.link)
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise Refusal(
            obj=f"release link {release.link}",
            problem=f"the file system of {folder} is mounted read-only",
            next_step=NEXT_STEPS[errno.EROFS].format(folder=folder),
        )
    if not os.access(folder, os.W_OK):
        raise Refusal(
            obj=f"release link {release.link}",
            problem=f"this account cannot write to {folder}",
            next_step="Give it that right, or set ansible_become for the host",
        )
    return _read(release.link)


def _read(link: str) -> LinkState:
    note = link + SUFFIX
    return LinkState(
        target=os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link))),
        switched=os.lstat(link).st_mtime,
        previous=os.readlink(note) if os.path.islink(note) else "",
    )


def read_links_left(units: t.Iterable[Unit]) -> tuple[dict[str, LinkState], list[str]]:
    """Return the states of all links after a run, and why others could not be read. Nothing is refused any more."""
    links: dict[str, LinkState] = {}
    unread: dict[str, str] = {}
    for unit in units:
        if unit.release is not None:
            link = unit.release.link
            try:
                links[link] = _read(link)
            except OSError as error:
                unread[link] = f"{link}: it could not be read: {error.strerror or error}"
    return links, list(unread.values())


def read_links(units: t.Iterable[Unit]) -> dict[str, LinkState]:
    """Return the states of all links by path. Refuse two units that want different releases behind one link."""
    links: dict[str, LinkState] = {}
    targets: dict[str, str] = {}
    for unit in units:
        release = unit.release
        if release is None:
            continue
        if targets.setdefault(release.link, release.target) != release.target:
            raise Refusal(
                obj=f"release link {release.link}",
                problem=f"units want {targets[release.link]} and {release.target} behind it",
                next_step="Declare one release for all units of a link",
            )
        if release.link not in links:
            links[release.link] = read_link(release)
    return links


def switch(release: Release, previous: str) -> None:
    """Point the link at its target in one step, after keeping ``previous``; a kill leaves the one or the other.

    A target that is ``previous`` itself is known to be good: then nothing is left to prove.
    """
    if previous != release.target:
        _point(release.link + SUFFIX, previous)
    _point(release.link, release.target)
    if previous == release.target:
        forget_previous(release)


def put_back(release: Release, previous: str) -> None:
    """Point the link at what was known to be good."""
    _point(release.link, previous)


def forget_previous(release: Release) -> None:
    """Remove the note of what was there before: the release behind the link is known to be good."""
    note = release.link + SUFFIX
    try:
        if os.path.islink(note):
            os.unlink(note)
    except OSError as error:
        raise _explain(note, "it could not be removed, though what is behind the link serves", error) from error


def _point(link: str, target: str) -> None:
    fresh = f"{link}.lowtide-new"
    try:
        if os.path.islink(fresh):
            os.unlink(fresh)
        os.symlink(target, fresh)
        os.replace(fresh, link)
    except OSError as error:
        raise _explain(link, f"it could not be pointed at {target} and is as it was", error) from error


def _explain(link: str, what: str, error: OSError) -> OpsError:
    """Return an error of the system at a link as a message."""
    folder = os.path.dirname(link)
    step = NEXT_STEPS.get(error.errno or 0, "See what the host says of {folder}: `stat {folder}`, `dmesg`")
    return OpsError(
        obj=f"release link {link}",
        problem=f"{what}: {error.strerror or error}",
        next_step=f"{step.format(folder=folder)}; then run this again",
    )
