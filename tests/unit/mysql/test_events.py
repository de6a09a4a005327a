# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which events do not run after a restore is read from their scripts; routines are replaced by theirs."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._mysql.definitions import word_replacement
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.events import Event, explain_inactive, read_event

SCRIPT = """/*!50106 DROP EVENT IF EXISTS `e` */;
DELIMITER ;;
/*!50003 SET time_zone             = '+02:00' */ ;;
/*!50106 CREATE*/ /*!50117 DEFINER=`root`@`localhost`*/ /*!50106 EVENT `e` ON SCHEDULE {} DO select 1
*/ ;;
DELIMITER ;
"""
AT = "2026-11-27 18:11:06"


@pytest.mark.parametrize(
    ("schedule", "event"),
    [
        (f"AT '{AT}' ON COMPLETION NOT PRESERVE ENABLE", Event(AT, "+02:00", False, "ENABLE")),
        (f"AT '{AT}' ON COMPLETION PRESERVE DISABLE", Event(AT, "+02:00", True, "DISABLE")),
        (
            "EVERY 1 DAY STARTS '2026-01-01 00:00:00' ON COMPLETION NOT PRESERVE DISABLE ON SLAVE COMMENT 'x'",
            Event(None, "+02:00", False, "DISABLE ON SLAVE"),
        ),
        (
            f"EVERY '1:30' HOUR_MINUTE STARTS '2026-01-01 00:00:00' ENDS '{AT}' ON COMPLETION PRESERVE ENABLE",
            Event(AT, "+02:00", True, "ENABLE"),
        ),
        (f"EVERY 5 MINUTE ENDS '{AT}' ON COMPLETION PRESERVE ENABLE", Event(AT, "+02:00", True, "ENABLE")),
        ("SOMETIMES", None),
    ],
)
def test_a_schedule_is_read(schedule: str, event: Event | None) -> None:
    """Its last moment, where it has one, and whether it is on."""
    assert read_event(SCRIPT.format(schedule).encode()) == event


@pytest.mark.parametrize(
    ("event", "has_ended", "words"),
    [
        (Event(AT, "SYSTEM", False, "ENABLE"), True, "not made, since its time has passed"),
        (Event(AT, "SYSTEM", True, "ENABLE"), True, "off, since its time has passed"),
        (Event(AT, "SYSTEM", False, "ENABLE"), False, None),
        (Event(None, "SYSTEM", False, "DISABLE ON SLAVE"), False, "off, as in the backup (DISABLE ON SLAVE)"),
    ],
)
def test_an_event_that_does_not_run_has_its_reason(event: Event, has_ended: bool, words: str | None) -> None:
    """Whatever it is."""
    found = explain_inactive(event, has_ended=has_ended)
    assert found is None if words is None else (found or "").startswith(words)


@pytest.mark.parametrize("kind", ["FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY"])
def test_a_routine_is_replaced_and_not_dropped(kind: str) -> None:
    """As DROP takes the rights on it along; a text of an unknown form is left as it is."""
    script = (
        f"/*!50003 DROP {kind} IF EXISTS `p` */;\n/*!50003 SET sql_mode = '' */ ;\nDELIMITER ;;\n"
        f"CREATE DEFINER=`a`@`%` {kind} `p`()\nbegin\nCREATE TABLE x (i int); end ;;\nDELIMITER ;\n"
    )
    assert word_replacement(script.encode()).decode() == (
        "/*!50003 SET sql_mode = '' */ ;\nDELIMITER ;;\n"
        f"CREATE OR REPLACE DEFINER=`a`@`%` {kind} `p`()\nbegin\nCREATE TABLE x (i int); end ;;\nDELIMITER ;\n"
    )
    odd = script.replace("CREATE DEFINER", "/* */ CREATE DEFINER").encode()
    assert word_replacement(odd) == odd
