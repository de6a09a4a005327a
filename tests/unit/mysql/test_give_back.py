# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a move says after its rename did not come about, or may have: whether the clients may start depends on it."""

from __future__ import annotations

import pytest

from ansible_collections.lowtide.ops.plugins.module_utils._common.errors import OpsError
from ansible_collections.lowtide.ops.plugins.module_utils._common.retry import Deadline
from ansible_collections.lowtide.ops.plugins.module_utils._mysql.move import Move


def make_error(problem: str) -> OpsError:
    """An error of the server."""
    return OpsError(obj="server", problem=problem, next_step="Look")


class Scripted(Move):
    """A move of which each part does what the test says."""

    def __init__(self, *, renamed: list[bool | OpsError], made: list[list[str] | OpsError]) -> None:
        self._database, self._beside, self._deadline = "shop", "shop__restored", Deadline(60)
        self._renamed, self._made = renamed, made
        self.anew: OpsError | None = None

    def is_renamed(self) -> bool:
        """The next answer."""
        answer = self._renamed.pop(0)
        if isinstance(answer, OpsError):
            raise answer
        return answer

    def _make_again(self) -> list[str]:
        answer = self._made.pop(0)
        if isinstance(answer, OpsError):
            raise answer
        return answer

    def _begin_anew(self) -> None:
        if self.anew is not None:
            raise self.anew


@pytest.mark.parametrize(
    ("renamed", "made", "words"),
    [
        ([True], [], "Until a run completes it, shop has the restored tables, and triggers, views or events may be"),
        ([make_error("error 2013")], [], "Whether the tables of shop were moved is not known (error 2013): keep its"),
        ([False], [["trigger named"]], "Nothing has been moved; what was dropped of shop is made again: trigger named"),
        (
            [False, False],
            [make_error("ERROR 1205 (HY000)"), ["trigger named"]],
            "Nothing has been moved; what was dropped of shop is made again: trigger named",
        ),
        ([False], [make_error("ERROR 1142")], "Nothing has been moved, and triggers, views or events of shop are miss"),
        (
            [False, make_error("error 2013")],
            [make_error("ERROR 1205 (HY000)")],
            "Nothing has been moved, and triggers, views or events of shop are missing",
        ),
    ],
)
def test_what_is_said_of_the_clients(
    renamed: list[bool | OpsError], made: list[list[str] | OpsError], words: str
) -> None:
    move = Scripted(renamed=renamed, made=made)
    said = move._give_back()
    assert said.startswith(words), said
    assert not renamed
    assert not made
    assert ("keep its clients stopped" in said) == ("is made again" not in said)


def test_a_copy_that_is_not_whole_again_is_named() -> None:
    """The database itself is; only the copy beside cannot be used for another move as it is."""
    move = Scripted(renamed=[False], made=[["view late"]])
    move.anew = make_error("error 1142")
    said = move._give_back()
    assert "is made again: view late. shop__restored is not whole again (error 1142)" in said
