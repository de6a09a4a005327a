# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rulebook against its engine's schema, the playbooks that it starts, and its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_rulebook.validators import Validate
from jsonschema.exceptions import ValidationError

from support.checkout import load_yaml, playbook_names, text

RULEBOOK = Path("extensions/eda/rulebooks/alert_diagnosis.yml")
PAGE = Path("docs/events.md")
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def rulebook() -> list[dict[str, Any]]:
    """It, as it is shipped."""
    loaded: list[dict[str, Any]] = load_yaml(RULEBOOK)
    return loaded


def find_block(key: str) -> Any:
    """Return the example of the page that begins with a key."""
    (found,) = [yaml.safe_load(block) for block in BLOCK.findall(text(PAGE)) if block.startswith(key)]
    return found


def list_rules(rulebook: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return its rules."""
    for ruleset in rulebook:
        yield from ruleset["rules"]


def test_schema_allows_it(rulebook: list[dict[str, Any]]) -> None:
    """And what the page puts in the place of its actions for an EDA controller; and refuses what is none."""
    Validate.rulebook(rulebook)
    again = next(list_rules(rulebook))["action"]["run_playbook"].items() - {("name", "lowtide.ops.diagnose")}
    assert again <= find_block("run_job_template:")["run_job_template"].items()
    for rule in list_rules(rulebook):
        rule["action"] = find_block("run_job_template:")
    Validate.rulebook(rulebook)
    for rule in list_rules(rulebook):
        del rule["throttle"]["group_by_attributes"]
    with pytest.raises(ValidationError):
        Validate.rulebook(rulebook)


def test_starts_playbooks_that_read(rulebook: list[dict[str, Any]]) -> None:
    """Each is one of the collection. It hands nothing of an alert to them, which would be a template to Ansible.

    A diagnosis fails where it could not read, and would else be missing for the hour; health fails with what it finds.
    """
    actions = [rule["action"]["run_playbook"] for rule in list_rules(rulebook)]
    again = {"retries": 1, "delay": 60}
    assert actions == [{"name": "lowtide.ops.diagnose", **again}, {"name": "lowtide.ops.health"}]
    assert {"diagnose", "health"} <= set(playbook_names())


def test_every_rule_is_throttled_and_asks_for_an_alert_that_fires(rulebook: list[dict[str, Any]]) -> None:
    """For as long as the page says."""
    for rule in list_rules(rulebook):
        assert rule["throttle"]["once_within"] == "1 hour"
        assert "event.labels.alertname" in rule["throttle"]["group_by_attributes"]
        assert rule["condition"].startswith('event.status == "firing" and event.labels.lowtide == ')
    assert "**Once an hour.**" in text(PAGE)
    (route,) = find_block("route:")["route"]["routes"]
    assert route["repeat_interval"] == "1h", "an alert that was forgotten comes again by then"


def test_page_has_every_variable(rulebook: list[dict[str, Any]]) -> None:
    """Token and TLS are among them, and none has a default."""
    used = set()
    for ruleset in rulebook:
        (source,) = ruleset["sources"]
        arguments = source["eda.builtin.webhook"]
        assert {"token", "certfile", "keyfile"} <= arguments.keys()
        for value in arguments.values():
            match = re.fullmatch(r"\{\{ (alert_\w+) \}\}", value)
            assert match, value
            used.add(match[1])
    assert set(find_block("alert_address:")) == used


def test_alert_of_the_page_is_one_of_the_rulebook() -> None:
    """By its labels, and Alertmanager of the page sends it."""
    (alert,) = find_block("- alert:")
    assert alert["labels"].keys() == {"lowtide", "lowtide_host"}
    (route,) = find_block("route:")["route"]["routes"]
    assert any(alert["alert"] in matcher for matcher in route["matchers"])
