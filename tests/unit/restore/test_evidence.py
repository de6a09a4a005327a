# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which evidence of a drill counts."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from ansible_collections.lowtide.ops.plugins.module_utils._backup.keys import Place
from ansible_collections.lowtide.ops.plugins.module_utils._pg_restore import evidence


def test_evidence_of_a_wrong_clock_hides_none_that_counts() -> None:
    """For it every later drill would be an older one, so that one would be due each night."""
    place, now = Place("b", "team", "shop", "7"), datetime(2026, 11, 27, tzinfo=UTC)
    own = {"proven": True, "database": "shop", "source_system_identifier": "7"}
    written = {
        f"{evidence.name_folder(place)}{name}.json": evidence.write_document({**own, "finished_at": stamp})
        for name, stamp in (("1", "2026-11-26T00:00:00Z"), ("2", "2027-11-26T00:00:00Z"))
    }
    keys = [key + end for key in written for end in ("", ".sig")]
    bucket: Any = SimpleNamespace(
        list_objects=lambda _folder: [SimpleNamespace(key=key) for key in keys],
        read=lambda key: written.get(key, b"s"),
        url=lambda key: key,
    )
    signer: Any = SimpleNamespace(is_ours=lambda _body, _signature: True)
    found = evidence.find_last(bucket, place, signer, latest=now)
    assert found.last is not None
    assert found.last.name == "1"
    ((url, problem),) = found.bad
    assert url.endswith("/2.json")
    assert "dated in the future (2027-11-26T00:00:00Z); set the clock" in problem
