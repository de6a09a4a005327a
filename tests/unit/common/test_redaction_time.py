# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Redaction takes a time that grows with the text, and not with its square, whatever the text is."""

from __future__ import annotations

import json
import time

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.redaction import MARKER, Redactor

SIZE = 200_000
LONGEST = 20.0
"""Seconds of a processor, of which about 4 are needed on a slow one; what grows with the square takes minutes."""


def nest(levels: int) -> str:
    """Return JSON in JSON, whose backslashes double with each level."""
    text = json.dumps({"name": "DB_PASSWORD", "value": "hunter22x"})
    for _level in range(levels):
        text = json.dumps({"log": text})
    return text


@pytest.mark.parametrize(
    "part",
    [
        "\\",
        'password=\\"',
        '\\"name\\":\\"',
        "\\" * 31 + '"x',
        "token-",
        "a:",
        "--token ",
        '"cookie: ',
        "cookie: ",
        "eyJaaaaaaaa.",
        "A" * 64 + "\n",
        "-----BEGIN PRIVATE KEY-----",
        "<",
        "redis-cli ",
        "curl -b ",
        "mysql -p",
        "docker login ",
        "-u ",
        "-uuuu ",
        '"-u",',
        "mongosh '",
        " ",
        "a",
    ],
)
def test_time_grows_with_the_text(part: str) -> None:
    """Of any one part that is repeated."""
    begin = time.process_time()
    Redactor(["hunter22x"]).redact("password=" + part * (SIZE // len(part)))
    assert time.process_time() - begin < LONGEST


def test_a_quotation_mark_behind_a_run_of_backslashes() -> None:
    """Each further character is compared with it."""
    begin = time.process_time()
    Redactor().redact("password=" + "\\" * (SIZE // 2) + '"' + "\\" * (SIZE // 2))
    assert time.process_time() - begin < LONGEST


@pytest.mark.parametrize("levels", range(6))
def test_nested_json_hides_no_secret(levels: int) -> None:
    """As deep as logs have it."""
    text = Redactor().redact(nest(levels))
    assert "hunter22x" not in text
    assert MARKER in text
