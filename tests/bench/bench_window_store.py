#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What keeping lease and journal on a server costs a window: beginning and ending one step on one host, by each store.

Run inside a lab::

    tests/lab/lab run -- python tests/bench/bench_window_store.py --steps 50

Prints one JSON document: milliseconds of each kind (median and range), in turns, with a journal of so many events, and
how many requests or statements a step takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.client import Client
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql.connection import Session
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.events import (
    StepStarted,
    StepSucceeded,
    WindowOpened,
)
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place
from ansible_collections.lowtide.ops.plugins.plugin_utils._window.session import OpenWindow
from support.kubernetes_server import ApiServer
from support.postgresql_servers import find_server, make_database
from support.window_stores import me

numbers = count(1)
asked = {"requests": 0, "statements": 0}


def count_calls() -> None:
    """Count what is sent."""
    exchange, query = Client._exchange, Session.query

    def exchange_counted(self: Any, *arguments: Any) -> Any:
        asked["requests"] += 1
        return exchange(self, *arguments)

    def query_counted(self: Any, *arguments: Any) -> Any:
        asked["statements"] += 1
        return query(self, *arguments)

    Client._exchange = exchange_counted  # type: ignore[method-assign, assignment]
    Session.query = query_counted  # type: ignore[method-assign, assignment]


def open_window(place: Place, folder: str) -> OpenWindow:
    """Take the lease and open an occurrence."""
    store = place.connect(folder)
    store.create()
    with store.lock():
        record = store.acquire(me(), "bench@1")
    window = OpenWindow(
        window="bench",
        window_id="bench@1",
        token=record.token,
        journal=store.make_name("bench@1"),
        control="ctl",
        check_mode=False,
        version="0",
        folder=folder,
        keep_days=0,
        place=place,
    )
    opened = WindowOpened(
        window="bench",
        window_id="bench@1",
        start="1",
        mode="window",
        steps=[],
        selected=[],
        control="ctl",
        ends=4e9,
        version="0",
    )
    with window.open_session() as session:
        session.append(opened)
    return window


def perform(window: OpenWindow, number: int) -> float:
    """Begin and end a step; return its milliseconds."""
    host = f"host{number}"
    begin = time.perf_counter()
    with window.open_session() as session:
        session.append(StepStarted(step="s", host=host, batch=0, why="due", digest="d", reverted_by=None), durable=True)
    with window.open_session() as session:
        session.append(StepSucceeded(step="s", host=host, changed=True, summary="done"))
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    lab = json.loads(Path(os.environ["LOWTIDE_LAB_FACTS"]).read_text(encoding="utf-8"))
    count_calls()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = find_server(lab, "16")
        name = f"bench_{os.getpid()}"
        database = stack.enter_context(make_database(server, lambda *_names, **_options: name))
        account = server.accounts[server.default]
        api = ApiServer(lab["kubernetes"])
        namespace = name.replace("_", "-")
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        stack.callback(api.request, "DELETE", f"/api/v1/namespaces/{namespace}")
        connection = {
            "login_host": server.host,
            "login_port": server.port,
            "login_user": account.user,
            "passfile": account.passfile,
            "login_db": database.name,
        }
        places = {
            "file": Place("bench", str(folder / "state")),
            "postgresql": Place("bench", shared={"postgresql": connection}),
            "kubernetes": Place(
                "bench",
                shared={"kubernetes": {"kubeconfig": lab["kubernetes"]["kubeconfig"], "namespace": namespace}},
            ),
        }
        windows = {}
        for kind, place in places.items():
            (folder / kind).mkdir()
            windows[kind] = open_window(place, str(folder / kind))
        taken: dict[str, list[float]] = {kind: [] for kind in windows}
        sent: dict[str, dict[str, int]] = {kind: {} for kind in windows}
        for _step in range(options.steps):
            for kind, window in windows.items():
                before = dict(asked)
                taken[kind].append(perform(window, next(numbers)))
                sent[kind] = {what: asked[what] - before[what] for what in asked}
    report = {
        kind: {
            "ms_median": round(statistics.median(values), 1),
            "ms_range": [round(min(values), 1), round(max(values), 1)],
            **{what: number for what, number in sent[kind].items() if number},
        }
        for kind, values in taken.items()
    }
    print(json.dumps({"events_at_the_end": 2 * options.steps + 1, **report}, indent=2))


if __name__ == "__main__":
    main()
