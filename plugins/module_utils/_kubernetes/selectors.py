# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Label selectors (matchLabels and matchExpressions). Private to lowtide.ops: do not import from other collections."""

from __future__ import annotations

import re

from .fields import Json, as_dict, as_list, as_text

_TERM = re.compile(
    r"(?P<absent>!)?(?P<key>[\w./-]+)\s*"
    r"(?:(?P<operator>==?|!=)\s*(?P<value>[\w.-]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?"
)
_SETS = {"in": "In", "notin": "NotIn"}


def matches(selector: Json, labels: Json) -> bool:
    """Return whether a selector selects ``labels``; an empty one selects nothing here, not everything."""
    pairs, expressions = as_dict(selector.get("matchLabels")), as_list(selector.get("matchExpressions"))
    if not pairs and not expressions:
        return False
    if any(labels.get(key) != value for key, value in pairs.items()):
        return False
    return all(_matches_expression(expression, labels) for expression in expressions)


def _matches_expression(expression: Json, labels: Json) -> bool:
    key, values = as_text(expression.get("key")), as_list(expression.get("values"))
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case operator:
            raise ValueError(f"unknown selector operator {operator!r}")


def parse_selector(text: str) -> Json:
    """Return a selector from the form that ``labelSelector`` has, as in the status of many resources.

    An empty one for what is empty or not understood: then nothing is known of the labels.
    """
    pairs: Json = {}
    expressions: list[Json] = []
    for term in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", text))):
        match = _TERM.fullmatch(term)
        if match is None:
            return {}
        key, operator = match["key"], match["operator"]
        if operator in ("=", "=="):
            pairs[key] = match["value"]
        elif operator == "!=":
            expressions.append({"key": key, "operator": "NotIn", "values": [match["value"]]})
        elif match["set"]:
            values = [value.strip() for value in match["values"].split(",")]
            expressions.append({"key": key, "operator": _SETS[match["set"]], "values": values})
        else:
            expressions.append({"key": key, "operator": "DoesNotExist" if match["absent"] else "Exists"})
    selector: Json = {"matchLabels": pairs} if pairs else {}
    return {**selector, "matchExpressions": expressions} if expressions else selector


def format_selector(selector: Json) -> str:
    """Return a selector as the query parameter ``labelSelector`` writes it; "" for an empty one."""
    parts = [f"{key}={value}" for key, value in sorted(as_dict(selector.get("matchLabels")).items())]
    for expression in as_list(selector.get("matchExpressions")):
        key, values = as_text(expression.get("key")), ",".join(as_list(expression.get("values")))
        forms = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        operator = expression.get("operator")
        if operator not in forms:
            raise ValueError(f"unknown selector operator {operator!r}")
        parts.append(forms[operator])
    return ",".join(parts)
