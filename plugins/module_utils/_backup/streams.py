# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pipelines side by side; the first failure ends the others. Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor, wait

if t.TYPE_CHECKING:
    from .pipeline import Pipeline

Result = t.TypeVar("Result")


class Streams:
    """Tasks side by side, each with a pipeline that it hands to :meth:`attach` once it has started it.

    What is raised is what failed first. The others' pipelines are stopped then, and what comes of that is not told.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipelines: list[Pipeline] = []
        self._failure: BaseException | None = None

    def attach(self, pipeline: Pipeline) -> None:
        """Have ``pipeline`` stopped by the failure of another task, also by one that has been already."""
        with self._lock:
            self._pipelines.append(pipeline)
            is_over = self._failure is not None
        if is_over:
            pipeline.stop()

    def run(self, tasks: t.Sequence[t.Callable[[], Result]]) -> list[Result]:
        """Run all tasks to their end and return their results, in order. A single one runs in this thread."""
        if len(tasks) == 1:
            return [tasks[0]()]
        with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
            futures = [pool.submit(self._run_one, task) for task in tasks]
            try:
                wait(futures)
            except BaseException as error:  # this process is interrupted
                self._fail(error)
                raise
        if self._failure is not None:
            raise self._failure
        return [future.result() for future in futures]

    def _run_one(self, task: t.Callable[[], Result]) -> Result:
        try:
            return task()
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure, and stop what is at work."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = error
            pipelines = list(self._pipelines)
        for pipeline in pipelines:
            pipeline.stop()
