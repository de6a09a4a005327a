# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus and Alertmanager from Debian, and a sink that keeps the notifications they send.

Scrape targets and rules are files: whoever wants something scraped writes ``targets/NAME.json`` (file_sd) into the
component's state directory, rules go to ``rules/NAME.yml`` and take effect by ``POST /-/reload``.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import probe
from labkit.component import Component
from labkit.network import CONTROL
from labkit.packages import apt

if TYPE_CHECKING:
    from labkit.lab import Lab

PROMETHEUS = f"{CONTROL}:9090"
ALERTMANAGER = f"{CONTROL}:9093"
SINK = f"{CONTROL}:9095"
SINK_PROGRAM = Path(__file__).resolve().parents[1] / "labkit" / "notification_sink.py"


class Prometheus(Component):
    """Scrapes every second and groups notifications for one second only, so that tests see them soon."""

    name = "prometheus"

    def install(self, lab: Lab) -> None:
        """Both daemons are Debian's; a rulebook that Alertmanager posts to runs on Java."""
        apt(lab, "prometheus", "prometheus-alertmanager", "openjdk-17-jre-headless")

    def start(self, lab: Lab) -> None:
        """The sink, Alertmanager that notifies it, Prometheus that alerts that one."""
        state = lab.state(self.name)
        for folder in ("targets", "rules"):
            (state / folder).mkdir(exist_ok=True)
        (state / "alertmanager.yml").write_text(json.dumps(self._alertmanager(), indent=2))
        (state / "prometheus.yml").write_text(json.dumps(self._prometheus(state), indent=2))
        lab.spawn(self.name, "sink", ["/usr/bin/python3", "-I", SINK_PROGRAM, SINK, state / "notifications.jsonl"])
        alertmanager = ["/usr/bin/prometheus-alertmanager", f"--config.file={state}/alertmanager.yml"]
        alertmanager += [f"--storage.path={state}/alertmanager", f"--web.listen-address={ALERTMANAGER}"]
        lab.spawn(self.name, "alertmanager", [*alertmanager, "--cluster.listen-address="])
        prometheus = [
            "/usr/bin/prometheus",
            f"--config.file={state}/prometheus.yml",
            f"--storage.tsdb.path={state}/data",
        ]
        lab.spawn(
            self.name, "prometheus", [*prometheus, f"--web.listen-address={PROMETHEUS}", "--web.enable-lifecycle"]
        )

    @staticmethod
    def _alertmanager() -> dict[str, Any]:
        return {
            "route": {"receiver": "sink", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"},
            "receivers": [{"name": "sink", "webhook_configs": [{"url": f"http://{SINK}/", "send_resolved": True}]}],
        }

    @staticmethod
    def _prometheus(state: Path) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [f"{state}/rules/*.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]},
            "scrape_configs": [
                {"job_name": "prometheus", "static_configs": [{"targets": [PROMETHEUS]}]},
                {
                    "job_name": "lab",
                    # A test's exporter shares two processors with the other lanes: one that answers after the
                    # timeout has no series for that scrape, and the timeout is at most the interval.
                    "scrape_interval": "5s",
                    "scrape_timeout": "5s",
                    "file_sd_configs": [{"files": [f"{state}/targets/*.json"], "refresh_interval": "5s"}],
                },
            ],
        }

    def ready(self, lab: Lab) -> None:
        """All three answer that they are ready."""

        def ready() -> bool:
            ready_at = ((SINK, "/"), (ALERTMANAGER, "/-/ready"), (PROMETHEUS, "/-/ready"))
            return all(probe.request(address, path).status == HTTPStatus.OK for address, path in ready_at)

        lab.wait_for("Prometheus, Alertmanager and their sink", ready, 300, *lab.processes(self.name))

    def facts(self, lab: Lab) -> dict[str, Any]:
        """The interfaces, and where targets and rules go."""
        state = lab.state(self.name)
        return {
            "url": f"http://{PROMETHEUS}",
            "alertmanager_url": f"http://{ALERTMANAGER}",
            "sink_url": f"http://{SINK}",
            "targets_dir": str(state / "targets"),
            "rules_dir": str(state / "rules"),
        }
