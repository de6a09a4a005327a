# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/connections.md says which variable of the environment stands for which option, and so the modules have it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lowtide.ops.plugins.module_utils._kafka import connection as kafka
from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes import access
from ansible_collections.lowtide.ops.plugins.module_utils._postgresql import connection as postgresql
from ansible_collections.lowtide.ops.plugins.module_utils._s3 import connection as s3
from support.checkout import text

SPECS: dict[str, dict[str, dict[str, Any]]] = {
    "PostgreSQL": postgresql.CONNECTION_SPEC,
    "Kafka": kafka.connection_spec(),
}


def read_table() -> dict[str, dict[str, list[str]]]:
    """Return the variables of each option, by system."""
    table: dict[str, dict[str, list[str]]] = {}
    system = ""
    rows = [line.split("|") for line in text(Path("docs/connections.md")).splitlines() if line.startswith("|")]
    for _begin, name, options, variables, _default, _end in rows:
        system = name.strip() or system
        if system in {"system", "---"}:
            continue
        own, found = re.findall(r"`([a-z_]+)`", options), re.findall(r"`([A-Z0-9_]+)`", variables)
        for number, option in enumerate(own):
            table.setdefault(system, {})[option] = found if len(own) == 1 else [found[number]]
    return table


TABLE = read_table()


def test_the_page_has_what_kubernetes_takes() -> None:
    own = {option: names[0] for option, names in access.VARIABLES.items() if option in TABLE["Kubernetes"]}
    assert own == {option: names[0] for option, names in TABLE["Kubernetes"].items()}
    assert {"kubeconfig", "host", "api_key", "ca_cert", "validate_certs"} <= own.keys()


def test_the_page_has_what_kafka_takes() -> None:
    assert {option: [name] for option, name in kafka.VARIABLES.items()} == TABLE["Kafka"]


def test_the_page_has_what_postgresql_takes() -> None:
    """The others are libpq's own, which needs nothing of ours."""
    own = {option: names for option, names in TABLE["PostgreSQL"].items() if option in postgresql.VARIABLES}
    assert own == {option: [name] for option, name in postgresql.VARIABLES.items()}
    assert {"login_password", "passfile", "ca_cert", "ssl_cert", "ssl_key"} == TABLE["PostgreSQL"].keys() - own.keys()


def test_the_page_has_what_s3_takes() -> None:
    assert TABLE["S3"]["endpoint_url"] == list(s3.ENDPOINT_VARIABLES)


@pytest.mark.parametrize("system", SPECS)
def test_an_option_wins_over_its_variable_and_a_variable_over_the_default(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[system]
    required: dict[str, Any] = {"login_db": "d"} if system == "PostgreSQL" else {}
    variables = postgresql.VARIABLES if system == "PostgreSQL" else kafka.VARIABLES
    for option, name in variables.items():
        choices = spec[option].get("choices")
        given, default = (choices[-1] if choices else "77"), spec[option].get("default")
        monkeypatch.delenv(name, raising=False)
        values = ArgumentSpecValidator(spec).validate({**required}).validated_parameters
        assert values[option] in (default, required.get(option)), option
        monkeypatch.setenv(name, given)
        left = {key: value for key, value in required.items() if key != option}
        result = ArgumentSpecValidator(spec).validate(left)
        assert result.error_messages == []
        assert str(result.validated_parameters[option]) in {given, str([given])}, option
        other = choices[0] if choices else "88"
        values = ArgumentSpecValidator(spec).validate({**left, option: other}).validated_parameters
        assert str(values[option]) in {other, str([other])}, option
        monkeypatch.delenv(name)
