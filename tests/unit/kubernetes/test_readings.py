# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers in what a pod answers: what is there is read, and what is not is never taken for zero."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lowtide.ops.plugins.module_utils._kubernetes.readings import (
    SHOWN,
    UnreadableAnswer,
    format_number,
    read_body,
    read_field,
    read_samples,
    shorten,
    sum_metric,
)

EXPOSITION = r"""
# HELP http_requests_in_flight Requests that are being served.
# TYPE http_requests_in_flight gauge
http_requests_in_flight{handler="api",path="/a,b} \"c\" \\ \n"} 2
http_requests_in_flight { handler = "web" , } 1.5 1395066363000
http_requests_in_flight_total 7
up 1
process_start_time_seconds 1.4e9
"""


def test_samples_are_read() -> None:
    """With escapes in labels, a comma at their end, and a time."""
    samples = read_samples(EXPOSITION)
    assert [sample.name for sample in samples].count("http_requests_in_flight") == 2
    assert samples[0].labels == {"handler": "api", "path": '/a,b} "c" \\ \n'}
    assert (samples[1].labels, samples[1].value) == ({"handler": "web"}, 1.5)
    assert samples[-1].value == 1.4e9


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("http_requests_in_flight", {}, 3.5),
        ("http_requests_in_flight", {"handler": "web"}, 1.5),
        ("up", {}, 1.0),
    ],
)
def test_a_metric_is_the_sum_of_its_samples(name: str, labels: dict[str, str], value: float) -> None:
    """Of those that have the labels; one whose name only begins so is another."""
    assert sum_metric(EXPOSITION, name, labels) == value


@pytest.mark.parametrize(
    ("text", "labels", "words"),
    [
        ("", {}, "it has no metric up"),
        ("down 1", {}, "it has no metric up"),
        ('up{job="a"} 1', {"job": "b"}, "with the labels {'job': 'b'}"),
        ("up", {}, "no line of Prometheus"),
        ("up one", {}, "has no number"),
        ('up{job="a} 1', {}, "no line of Prometheus"),
        ('{"up": 1}', {}, "no line of Prometheus"),
        ("up NaN", {}, "no count"),
        ("up +Inf", {}, "no count"),
    ],
)
def test_a_metric_that_is_not_there_is_no_zero(text: str, labels: dict[str, str], words: str) -> None:
    """Nor is one that cannot be read."""
    with pytest.raises(UnreadableAnswer, match=re.escape(words)):
        sum_metric(text, "up", labels)


def test_fields_of_json() -> None:
    """By their keys joined by dots."""
    assert read_field('{"a": {"b": 2}}', "a.b") == 2.0
    for text in ("{}", '{"a": 1}', '{"a": {"b": true}}', '{"a": {"b": "0"}}', '{"a": {"b": null}}', "0", "[", "[1]"):
        with pytest.raises(UnreadableAnswer):
            read_field(text, "a.b")


def test_a_whole_answer() -> None:
    """As a number and nothing else."""
    assert read_body(" 3\n") == 3.0
    for text in ("", "3 requests", "nan", "<html>"):
        with pytest.raises(UnreadableAnswer):
            read_body(text)


@given(st.text())
def test_whatever_a_pod_answers_is_a_number_or_unreadable(text: str) -> None:
    """Nothing else is raised, and what is shown is one short line."""
    for read in (read_samples, read_body):
        message = ""
        try:
            read(text)
        except UnreadableAnswer as error:
            message = str(error)
        assert message.isprintable()
    assert len(shorten(text)) <= SHOWN + 3


def test_numbers_are_shown_without_an_empty_fraction() -> None:
    """As people write them."""
    assert [format_number(value) for value in (3.0, 0.5)] == ["3", "0.5"]


KEY = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(["planted" + "Ab1+" * 14] * 20) + "\n-----END PRIVATE KEY-----"
SECRETS = [
    '{"error": "cannot log in", "password": "planted-5e1d"}',
    "x" * (SHOWN - 12) + " token=planted-" + "y" * 400,
    f"cannot use {KEY}",
    f"# {KEY}",
    f"up 1\n# {KEY}\nup 1",
    "postgresql://app:planted@db/app",
    '{"password": "planted-5e1d", "in_flight": "none"}',
]


@pytest.mark.parametrize("text", SECRETS)
def test_an_answer_in_a_message_has_no_secret(text: str) -> None:
    """It is redacted before it is shortened, so that no secret is cut in two; and whole, not by its lines."""
    messages = [shorten(text)]
    for read in (
        read_body,
        read_samples,
        lambda text: read_field(text, "in_flight"),
        lambda text: sum_metric(text, "a", {}),
    ):
        with pytest.raises(UnreadableAnswer) as caught:
            read(text)
        messages.append(str(caught.value))
    assert "planted" not in " ".join(messages)
    assert "[redacted]" in messages[0] or len(text) > SHOWN


def test_a_field_with_a_secret_name_is_not_shown() -> None:
    """Nothing in the value itself says what it is."""
    with pytest.raises(UnreadableAnswer, match=r"its field auth\.token is '\[redacted\]', which is no number"):
        read_field('{"auth": {"token": "planted"}}', "auth.token")
