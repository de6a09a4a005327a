# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which functions of a source begin with a verb, as functions from source to names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

VERBS = frozenset(
    """
    abort accept acquire add adjust advance aggregate allow announce answer append apply approve archive arrange ask
    assemble assert assign attach authenticate await become begin bind bisect block broadcast build bury calculate
    call cancel capture carry cast catch change check choose claim classify clean clear clone close collect commit
    compact compare compile complete compose compress compute confirm connect construct consume continue convert
    copy count create cut deactivate decide declare decode decrypt delete deliver demand deny deploy derive describe
    deserialize detach detect determine diagnose die diff digest disable discard disconnect discover dispatch
    display distribute divide do download drain drop dump emit enable encode encrypt end enforce ensure enter
    enumerate escape establish estimate evaluate examine exchange exclude execute exit expand expect expire explain
    export expose extend extract fail fence fetch fight fill filter find finish fit fix flatten flush fold follow
    forbid force forget format forward freeze gather generate get give go grant group guard guess handle hash hide
    hold identify ignore import include increment index infer inform initialize insert inspect install interpret
    interrupt invalidate invoke issue iterate join judge keep kill leave let limit link list listen load locate lock
    log look maintain make manage map mark match measure merge migrate modify monitor mount move name narrow
    normalize note notify observe obtain offer open order pack pad parse pass patch pause perform persist pick ping
    place plan poll pop populate post predict prefix preload prepare present preserve prevent print proceed process
    produce prompt propose protect prove provide prune publish pull purge push put query queue quote raise reach
    read rebuild receive recognize reconcile record recover redact reduce refresh refuse register reject relate
    release reload relist remember remove rename render renew reopen repair repeat replace replay reply report
    request require reserve reset resolve respond restart restore resume retain retire retrieve retry return reuse
    reverse revert revoke rewrite roll rotate round run sample save scale scan schedule search seek select send
    separate serialize serve set settle share shift show shut sign signal simulate skip sleep solve sort specify
    split spawn stamp start state stop store stream strip submit substitute subtract suggest summarise summarize
    supply suspend swap sweep switch sync take tell terminate test throw toggle touch track transfer transform
    translate traverse trim truncate try turn undo unfreeze unlink unlock unmount unpack unregister update upgrade
    upload use validate verify view visit wait wake walk want warn watch widen withdraw work wrap write yield
    accepts are blocks can could covers did does exists had has have is may must needs should was were will
    """.split()  # noqa: SIM905 (one literal reads better than 300)
)
NOUNS_ALONE = frozenset(
    """
    answer block call change claim count cut diff digest display end estimate exchange filter group guard hash hold
    index issue limit link list log look map measure name note offer order pass place plan post prefix present
    process prompt queue quote record reply round sample scale schedule set share shift signal sleep state store
    stream track view want work
    """.split()  # noqa: SIM905 (one literal reads better than 300)
)
"""Verbs that are read as a noun when no other word follows: ``state()`` or ``plan()`` may return one or do it."""
CONVERSIONS = ("from", "as", "to")
"""``from_dict`` makes an object of the class, ``as_dict`` gives it another form: both are the language's own idiom."""
REQUIRED = frozenset({"main", "filters", "tests"})
"""Names that Ansible or Python's habit prescribes."""


@dataclass(frozen=True)
class Share:
    """The functions of some sources: how many were counted, and the names of those that begin with no verb."""

    counted: int
    without: tuple[str, ...]

    @property
    def percent(self) -> float:
        """How many of a hundred begin with a verb; of no functions all do."""
        return 100.0 * (self.counted - len(self.without)) / self.counted if self.counted else 100.0


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(name.rpartition(".")[2] in {"property", "cached_property", "setter", "deleter"} for name in names)


def functions(source: str) -> Iterator[str]:
    """Find the functions and methods whose name is the author's choice of a word: no property, conversion or dunder."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_property(node):
            continue
        name = node.name
        is_dunder = name.startswith("__") and name.endswith("__")
        if not is_dunder and name not in REQUIRED and name.strip("_").split("_")[0] not in CONVERSIONS:
            yield name


def begins_with_verb(name: str) -> bool:
    """Whether the first word is a verb, and not a noun for want of another word."""
    first, _underscore, rest = name.strip("_").partition("_")
    return first in VERBS and (bool(rest) or first not in NOUNS_ALONE)


def measure(sources: list[str]) -> Share:
    """Count the functions of all sources."""
    names = [name for source in sources for name in functions(source)]
    return Share(len(names), tuple(name for name in names if not begins_with_verb(name)))
