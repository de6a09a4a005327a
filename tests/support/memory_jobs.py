# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Play the controller of Jobs for the API server in memory: pods of Jobs that are not suspended, and their ends."""

from __future__ import annotations

import threading
from typing import Any

from .kubernetes_objects import refer_to
from .memory_kubernetes import MemoryServer
from .memory_objects import format_now

Json = dict[str, Any]

NAMESPACE = "n"
ALWAYS = 10**6


class JobController:
    """Starts each Job that is not suspended, and ends it ``seconds`` later; with ``holds`` when ``end`` is called.

    ``exit_codes`` has one for each Job in the order in which they start, then 0. ``running`` has how many ran after
    each start.
    """

    def __init__(
        self, server: MemoryServer, *, holds: bool = False, seconds: float = 0.0, lines: list[str] | None = None
    ) -> None:
        self.server = server
        self.holds = holds
        self.seconds = seconds
        self.exit_codes: list[int] = []
        self.started: list[str] = []
        self.running: list[int] = []
        self.lines = ["done"] if lines is None else lines
        for verb in ("create", "patch"):
            server.add_rival(self.act, when="after", verb=verb, path="/jobs", times=ALWAYS)

    def act(self) -> None:
        """Start what may run."""
        with self.server.changed:
            self._act()

    def _act(self) -> None:
        for job in self.server.read_all("Job"):
            status = job.get("status") or {}
            if not job["spec"].get("selector"):
                self._adopt(job)
            if not job["spec"].get("suspend") and not status.get("startTime"):
                self.start(job["metadata"]["name"])

    def _adopt(self, job: Json) -> None:
        labels = {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}

        def select(obj: Json) -> None:
            obj["spec"]["selector"] = {"matchLabels": labels}

        self.server.change("Job", NAMESPACE, job["metadata"]["name"], select, manager="kube-apiserver")

    def start(self, name: str) -> None:
        """Let a Job have its pod."""
        job = self.server.read("Job", NAMESPACE, name)
        own = job["spec"]["template"].get("metadata", {}).get("labels", {})
        metadata = {
            "name": f"{name}-x",
            "namespace": NAMESPACE,
            "labels": {**own, **job["spec"]["selector"]["matchLabels"]},
            "ownerReferences": [refer_to(job, "Job")],
        }
        container = {"name": "main", "state": {"running": {}}}
        status = {"phase": "Running", "containerStatuses": [container]}
        spec = job["spec"]["template"]["spec"]
        self.server.put({"kind": "Pod", "metadata": metadata, "spec": spec, "status": status}, manager="controller")
        self.server.log_lines[NAMESPACE, f"{name}-x"] = self.lines
        self._set_status(name, {"startTime": format_now(), "active": 1})
        self.started.append(name)
        self.running.append(len([pod for pod in self.server.read_all("Pod") if pod["status"]["phase"] == "Running"]))
        if self.seconds:
            threading.Timer(self.seconds, self.end, (name,)).start()
        elif not self.holds:
            self.end(name)

    def end(self, name: str) -> None:
        """Let a Job's pod end, and the Job with it: what announced its end stays beside it (Kubernetes 1.31)."""
        code = self.exit_codes.pop(0) if self.exit_codes else 0
        word = "Failed" if code else "Succeeded"
        now = format_now()
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": now}

        def stop(pod: Json) -> None:
            container = {"name": "main", "state": {"terminated": ended}}
            pod["status"] = {"phase": word, "containerStatuses": [container]}

        self.server.change("Pod", NAMESPACE, f"{name}-x", stop, manager="controller")
        reason = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        why = reason if code else {}
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now, **why}
            for kind in (("FailureTarget", "Failed") if code else ("SuccessCriteriaMet", "Complete"))
        ]
        status = {"startTime": now, word.lower(): 1, "conditions": conditions}
        self._set_status(name, status)

    def _set_status(self, name: str, status: Json) -> None:
        self.server.change("Job", NAMESPACE, name, lambda job: job.update(status=status), manager="controller")
