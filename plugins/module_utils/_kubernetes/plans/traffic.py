# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sending requests to a maintenance page, and back, means for one object: the write, and why.

Each route that is set is saved with what it was and what it became, in the same write. So the way back restores it
exactly, and leaves alone what a person has set to something else since.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import typing as t

from ..fields import Json, as_dict, as_int, get_path
from ..patches import Write
from ..routes import Routes, Target, build_body, choose_routes, list_paths, read_routes
from ..saved_state import (
    SWITCH,
    TRAFFIC,
    SavedState,
    UnreadableSavedState,
    drop_state,
    find_state,
    is_window,
    save_state,
)

_ANNOTATION = ("metadata", "annotations", TRAFFIC)


class Served(t.NamedTuple):
    """The pods that requests were sent to, how many of them were ready, and whether these are all."""

    pods: tuple[str, ...] = ()
    ready: int = 0
    is_complete: bool = True


class Change(t.NamedTuple):
    """What one object needs: a write (None: nothing), its routes before and after as far as they are set, the reason.

    ``is_left``: it stays in maintenance, because no window sent it there, or because what was saved cannot be read
    (``problem``). ``changed_since`` are routes that another client has set meanwhile, which stay. ``endpoints`` is how
    many pods served the requests before they were sent away, 0 where that is not known, ``served`` which.
    """

    write: Write | None
    before: Routes
    after: Routes
    reason: str
    saved: SavedState | None = None
    is_left: bool = False
    problem: str = ""
    changed_since: tuple[str, ...] = ()
    endpoints: int = 0
    is_assumed: bool = False
    served: Served = Served()

    @property
    def is_due(self) -> bool:
        """Whether there is something to do."""
        return self.write is not None or self.is_assumed


class _Note(t.NamedTuple):
    """What a switch has saved: what the routes were, what they became, and the pods that served before."""

    before: Routes
    after: Routes
    endpoints: int
    state: SavedState
    served: Served


def _get_annotations(obj: Json) -> Json:
    return as_dict(get_path(obj, "metadata", "annotations"))


def read_note(obj: Json) -> _Note | None:
    """Return what a switch saved on an object; None when nothing is. Raises UnreadableSavedState."""
    state = find_state(_get_annotations(obj), TRAFFIC, SWITCH)
    if state is None:
        return None
    before, after = state.spec.get("before"), state.spec.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict) or before.keys() != after.keys():
        raise UnreadableSavedState(f"annotation {TRAFFIC} does not say what there was before: {state.spec!r}")
    pods = state.spec.get("pods")
    names = tuple(str(name) for name in pods) if isinstance(pods, list) else ()
    served = Served(names, is_complete=isinstance(pods, list) and state.spec.get("pods_complete") is not False)
    return _Note(before, after, as_int(state.spec.get("endpoints")), state, served)


def read_saved(obj: Json) -> SavedState | None:
    """Return who has switched an object and when, for reports; None when nobody has, or it cannot be read."""
    try:
        note = read_note(obj)
    except UnreadableSavedState:
        return None
    return note.state if note is not None else None


def list_fresh(obj: Json, target: Target) -> Routes:
    """Return the routes that are to be switched and that no run of this collection has switched, as they are set.

    Raises UnreadableSavedState, and Refusal where the object has none of the target's routes.
    """
    note, present, goal = read_note(obj), read_routes(obj, target.kind), choose_routes(obj, target)
    ours = _list_ours(note, present)
    return {key: present.get(key) for key in goal if key not in ours and present.get(key) != goal[key]}


def _list_ours(note: _Note | None, present: Routes) -> Routes:
    """Return what the routes had before, of those that are as they were switched."""
    if note is None:
        return {}
    return {key: note.before[key] for key in note.after if present.get(key) == note.after[key]}


def plan_away(obj: Json, target: Target, *, served: Served, run_id: str, now: str) -> Change:
    """Plan to send the target's requests to the maintenance page, and to save where they went.

    What is switched already keeps what was saved. A route that a person has set since counts as what was there before.
    One that points at the page without having been sent there by this collection stays so, also on the way back. Routes
    that were switched and are no longer asked for get back what they had. ``served`` is by which pods the routes of
    ``list_fresh`` are served. That is saved with them, so that a later run knows where requests may be in flight.
    """
    try:
        note = read_note(obj)
    except UnreadableSavedState as error:
        return Change(None, {}, {}, "what was saved on it cannot be read", problem=str(error))
    present, goal = read_routes(obj, target.kind), choose_routes(obj, target)
    ours = _list_ours(note, present)
    before = {key: ours.get(key, present.get(key)) for key in goal if key in ours or present.get(key) != goal[key]}
    after = {key: goal[key] for key in before}
    returned = {key: value for key, value in ours.items() if key not in goal}
    routes = {key: value for key, value in {**after, **returned}.items() if present.get(key) != value}
    is_saved = note is not None and (note.before, note.after) == (before, after)
    if is_saved and not routes:
        saved, known = (note.state, note.served) if note is not None else (None, Served(is_complete=False))
        return Change(None, before, after, _tell_who(note), saved=saved, served=known)
    if not before and not returned and note is None:
        reason = "it goes there already, and no run of this collection has sent it there"
        return Change(None, {}, {}, reason, served=Served(is_complete=False))
    count = note.endpoints if note is not None and ours else served.ready
    if note is not None:
        pods = tuple(sorted({*note.served.pods, *served.pods}))
        served = Served(pods, count, is_complete=note.served.is_complete and served.is_complete)
    spec: Json = {"before": before, "after": after, "endpoints": count, "pods": list(served.pods)}
    if not served.is_complete:
        spec["pods_complete"] = False
    state = SavedState(spec, run_id, now, operation=SWITCH)
    annotations = _get_annotations(obj)
    kept = save_state(annotations, TRAFFIC, state) if before else drop_state(annotations, TRAFFIC, SWITCH)
    write = _write(obj, target.kind, routes, kept)
    reason = "asked to be in maintenance"
    return Change(write, _pick(present, routes), routes, reason, saved=state, served=served)


def plan_back(obj: Json, target: Target, *, only_windows: bool = False, assume_away: bool = False) -> Change:
    """Plan to give the requests back where they went before; nothing where nothing was saved.

    With ``only_windows`` what was switched by a run that is no window stays. With ``assume_away``, in a rehearsal, what
    is not switched is taken for switched.
    """
    try:
        note = read_note(obj)
    except UnreadableSavedState as error:
        return Change(None, {}, {}, "what was saved on it cannot be read", is_left=True, problem=str(error))
    if note is None:
        if assume_away:
            goal = choose_routes(obj, target)
            return Change(None, goal, _pick(read_routes(obj, target.kind), goal), _ASSUMED, is_assumed=True)
        return Change(None, {}, {}, "it is not in maintenance")
    if only_windows and not is_window(note.state.run_id):
        return Change(None, {}, {}, f"{_tell_who(note)}, which is no window", saved=note.state, is_left=True)
    present = read_routes(obj, target.kind)
    ours = _list_ours(note, present)
    others = [key for key in note.after if key not in ours and present.get(key) != note.before[key]]
    routes = {key: value for key, value in ours.items() if present.get(key) != value}
    write = _write(obj, target.kind, routes, drop_state(_get_annotations(obj), TRAFFIC, SWITCH))
    return Change(
        write,
        _pick(present, routes),
        routes,
        _tell_who(note),
        saved=note.state,
        changed_since=tuple(others),
        endpoints=note.endpoints if ours else 0,
    )


_ASSUMED = "assumed to be in maintenance by then"


def _tell_who(note: _Note | None) -> str:
    return f"run {note.state.run_id} sent it there at {note.state.at}" if note is not None else ""


def _pick(present: Routes, routes: t.Iterable[str]) -> Routes:
    return {key: present.get(key) for key in routes}


def _write(obj: Json, kind: str, routes: Routes, annotation: t.Mapping[str, str | None]) -> Write:
    """Return one write with the routes and the annotation about them."""
    body = build_body(obj, kind, routes)
    annotations = {**as_dict(get_path(body, "metadata", "annotations")), **annotation}
    body = {**body, "metadata": {"annotations": annotations}}
    return Write(body, depends_on=(_ANNOTATION, *list_paths(kind, routes)))
