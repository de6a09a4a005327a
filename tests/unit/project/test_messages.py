# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/troubleshooting.md quotes messages that the code gives, and every refusal of the window."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkout import below, text
from support.messages import find_problems, find_quoted, find_texts, is_quote_of

PAGE = Path("docs/troubleshooting.md")
QUOTED = sorted(set(find_quoted(text(PAGE))))
WINDOW = below("plugins/plugin_utils/_window", ".py")


@pytest.fixture(scope="module")
def texts() -> set[str]:
    """All texts of the code, and the YAML of roles."""
    found = {text(path) for path in below("roles", ".yml")}
    for path in below("plugins", ".py"):
        found |= find_texts(text(path))
    return found


@pytest.mark.parametrize("quoted", QUOTED)
def test_quoted_message_is_one_of_the_code(quoted: str, texts: set[str]) -> None:
    """A message that was reworded takes its row along."""
    assert any(is_quote_of(quoted, message) for message in texts)


@pytest.mark.parametrize("path", WINDOW, ids=lambda path: path.stem)
def test_every_refusal_of_the_window_is_quoted(path: Path) -> None:
    """What a user of windows can meet has a row."""
    problems = find_problems(text(path))
    assert [problem for problem in problems if not any(quoted in problem for quoted in QUOTED)] == []


def test_messages_of_the_code_are_found() -> None:
    """Constants and formatted texts over several lines; one that is only a value is none."""
    source = 'raise Refusal(obj="x", problem=f"it has {a}, and " f"{b} wants it", next_step="y")\nrefuse("z", "y")'
    assert find_problems(source) == {"it has ..., and ... wants it", "z"}
    assert find_problems("Refusal(problem=error)") == set()
    assert "it has ..., and ... wants it" in find_texts(source)


def test_quotes_are_compared_by_their_fixed_words() -> None:
    """In order; another word, or another order, is another message."""
    message = "it has ..., and the window is opened on ..."
    assert is_quote_of("it has ..., and the window", message)
    assert not is_quote_of("the window ... it has", message)
    assert not is_quote_of("it had ..., and the window", message)


def test_quotes_are_found_in_the_first_column() -> None:
    """Other cells and prose are no messages."""
    assert list(find_quoted("| message | do |\n| --- | --- |\n| `a ...` | `b` |\nsee `c`\n")) == ["a ..."]
