# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories and sites that cannot be the place of windows in a container are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lowtide.ops.plugins.plugin_utils._window.places import Place

from .simulation import Simulation


def test_a_job_whose_disk_ends_with_it_is_refused(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWX_ISOLATED_DATA_DIR", str(simulation.place))
    directory = str(simulation.place / "windows")
    cause = simulation.run(place=Place("site", directory))
    assert f"window_dir {directory}: it is in {simulation.place}, which is made for one job. Set window_store" in cause
    assert not Path(directory).exists(), "nothing was written"


def test_a_site_that_every_inventory_of_awx_has_is_refused(simulation: Simulation) -> None:
    job = {"id": "1"}
    cause = simulation.run(place=Place("/runner/inventory", str(simulation.place)), job=job)
    assert "window_site /runner/inventory: in a job of AWX that directory is the same for every" in cause
    assert "Set window_site to the name of the site" in cause
