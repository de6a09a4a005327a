# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a job in a private data directory by ansible-runner, as in the container that AWX starts for it.

``_awx_job.py FOLDER``; reads the arguments of ``ansible_runner.run`` as JSON, writes each event as a line of JSON, and
status and exit code at last. The file FOLDER/cancel cancels the job, FOLDER/timeout lets its time be over.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible_runner.interface import init_runner


def main(folder: str, arguments: dict[str, Any]) -> None:
    """Run the job."""

    def tell(event: dict[str, Any]) -> bool:
        print(json.dumps(event), flush=True)
        return True

    def is_cancelled() -> bool:
        if Path(folder, "timeout").exists():
            runner.config.job_timeout = 1
        return Path(folder, "cancel").exists()

    runner: Any = init_runner(private_data_dir=folder, event_handler=tell, cancel_callback=is_cancelled, **arguments)
    runner.run()
    tell({"status": runner.status, "rc": runner.rc})


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
