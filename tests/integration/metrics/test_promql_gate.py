# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""promql_gate asks a real Prometheus, whose values change meanwhile."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.modules import ModuleRun, finish_module, run_module, start_module

pytestmark = pytest.mark.lab("prometheus")
Json = dict[str, Any]


class Exporter:
    """A target that Prometheus scrapes, with one gauge for each pod."""

    def __init__(self, lab: Json, job: str) -> None:
        self.values = {"a-0": 0.0, "a-1": 0.0}
        self.job = job
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [f'rate_limited{{pod="{pod}"}} {value}\n' for pod, value in exporter.values.items()]
                body = "".join(lines).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.targets = Path(lab["prometheus"]["targets_dir"], f"{job}.json")
        target = f"127.0.0.1:{self.server.server_address[1]}"
        self.targets.write_text(json.dumps([{"targets": [target], "labels": {"job": job}}]), encoding="utf-8")

    def close(self) -> None:
        """Be scraped no more."""
        self.targets.unlink()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def exporter(lab: Json, unique_name: Callable[..., str]) -> Iterator[Exporter]:
    """A target that has been scraped."""
    made = Exporter(lab, unique_name("gate"))
    try:
        wait_for(lab, made, 0.0)
        yield made
    finally:
        made.close()


def params(lab: Json, exporter: Exporter, **more: Any) -> Json:
    """Ask for the two pods' gauges, of which none may be above 1."""
    query = {"name": "429 answers", "query": f'rate_limited{{job="{exporter.job}"}}', "max": 1.0, "min_series": 2}
    return {"url": lab["prometheus"]["url"], "queries": [query], **more}


def ask(lab: Json, exporter: Exporter, *, check: bool = False, **more: Any) -> ModuleRun:
    """Run the module."""
    return run_module("promql_gate", params(lab, exporter, **more), check=check)


def wait_for(lab: Json, exporter: Exporter, value: float) -> None:
    """Until Prometheus has scraped this value of the second pod."""
    end = time.monotonic() + 180
    while True:
        run = ask(lab, exporter, check=True)
        values = [entry["value"] for entry in run["values"] if 'pod="a-1"' in entry["labels"]]
        if values == [value]:
            return
        assert time.monotonic() < end, run.result
        time.sleep(0.5)


@pytest.mark.procedure("A4")
def test_it_is_open_while_every_pod_is_within_its_limit(lab: Json, exporter: Exporter) -> None:
    """Then one pod is above: scaling out would make it worse, and the gate names the pod."""
    # A scrape that the exporter answers too late leaves no series: that may be so before it holds.
    held = ask(lab, exporter, hold=4, interval=0.5, timeout=60)
    assert not held.failed, held.msg
    assert held["rounds"] >= 3
    exporter.values["a-1"] = 3.0
    wait_for(lab, exporter, 3.0)
    closed = ask(lab, exporter, hold=2)
    assert closed.failed
    assert 'pod="a-1"' in closed.msg
    assert "its value 3 is above max 1" in closed.msg
    assert 'pod="a-0"' not in closed.msg
    assert closed["passed"] is False


def test_it_closes_when_a_value_leaves_its_limit_while_it_holds(lab: Json, exporter: Exporter) -> None:
    process = start_module("promql_gate", params(lab, exporter, hold=60, interval=0.5))
    time.sleep(1)  # it is in the middle of holding
    exporter.values["a-1"] = 3.0
    run = finish_module(process)
    assert run.failed
    assert "its value 3 is above max 1" in run.msg
    assert run["waited"] < 60


def test_a_pod_that_is_not_scraped_any_more_closes_it(lab: Json, exporter: Exporter) -> None:
    del exporter.values["a-1"]
    end = time.monotonic() + 180
    # It has none at all after a scrape that the exporter answers too late.
    while "it has 1 series" not in (run := ask(lab, exporter)).msg:
        assert time.monotonic() < end, run.result
        time.sleep(0.5)
    assert "it has 1 series, fewer than min_series 2" in run.msg


def test_an_expression_that_is_wrong_is_refused(lab: Json, exporter: Exporter) -> None:
    query = {"name": "q", "query": "rate(up[", "max": 1.0}
    run = ask(lab, exporter, queries=[query], timeout=60)
    assert "refuses 'rate(up['" in run.msg
    assert run["error"]["refused"] is True
    ranged = ask(lab, exporter, queries=[{**query, "query": "up[1m]"}])
    assert "its result is of type matrix" in ranged.msg
    scalar = ask(lab, exporter, queries=[{**query, "query": "1 / 0 - 1 / 0"}])
    assert "its value is nan" in scalar.msg
