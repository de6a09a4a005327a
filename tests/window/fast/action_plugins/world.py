# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The trivial world of the fast window: one JSON file a host, changed in one atomic write."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Bring the keys of ``set`` to their values; ``count`` names a counter of real changes; ``fail`` fails on these
    hosts."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Kill points inside the step: WORLD_KILL is ``before|between|after:HOST:WHY:SIGNAL``, for the controller.

        SIGKILL takes the step's own process along, as the end of a container does; otherwise it could go on to write.
        """
        del tmp
        variables = task_vars or {}
        host = variables["inventory_hostname"]
        args = self._task.args
        path = Path(os.environ["WORLD"], f"{host}.json")
        world = json.loads(path.read_text())
        if self._task.check_mode:
            world.update(args.get("assume") or {})
        wanted = {key: value for key, value in args["set"].items() if world.get(key) != value}
        result: dict[str, Any] = {
            "changed": bool(wanted),
            "summary": args["why"] if wanted else "as it should be",
            "plan": [],
            "blockers": args.get("blockers", []),
            "evidence": args.get("evidence", []),
        }
        if wanted:
            result["plan"] = [
                {"object": host, "what": json.dumps(wanted), "why": args["why"], "reversible": True, "estimate": 1}
            ]
        if args.get("fail") and host in str(args["fail"]).split(",") and not self._task.check_mode:
            return {"failed": True, "msg": f"{host}: told to fail. Do not tell it to."}
        if self._task.check_mode:
            return {"changed": bool(wanted), "result": result}
        self._kill("before", host, args["why"])
        if wanted:
            world.update(wanted)
            world = {key: value for key, value in world.items() if value is not None}
            if args.get("count"):
                world[args["count"]] = world.get(args["count"], 0) + 1
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(world))
            self._kill("between", host, args["why"])
            os.replace(temporary, path)
        self._kill("after", host, args["why"])
        return {"changed": bool(wanted), "result": result}

    @staticmethod
    def _kill(point: str, host: str, why: str) -> None:
        wanted = os.environ.get("WORLD_KILL", "").split(":")
        if wanted[:3] == [point, host, why]:
            os.kill(os.getppid(), int(wanted[3]))
            if int(wanted[3]) == signal.SIGKILL:
                os.kill(os.getpid(), signal.SIGKILL)
