# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource quantities, and what one pod requests and is limited to, counted as the scheduler and quotas count it.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import functools
import re
import typing as t
from decimal import Decimal

Spec = t.Mapping[str, t.Any]
"""A pod's spec, or the one in a template."""
Amounts = dict[str, Decimal]
"""Cores, bytes or pieces, by the name of the resource."""

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:(?P<exponent>[eE][+-]?\d+)|(?P<suffix>[numkMGTPE]|[KMGTPE]i))?", re.ASCII
)
_EXPONENT = re.compile(r"[eE][+-]?\d+$", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def parse_quantity(value: t.Any) -> Decimal:
    """Return a resource quantity as a plain number: cores, bytes or pieces. ValueError when it is none."""
    return _parse_text(str(value).strip())


@functools.lru_cache(maxsize=4096)
def _parse_text(text: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number = Decimal(match["number"] + (match["exponent"] or ""))
    suffix = match["suffix"] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix]
    return number.scaleb(_DECIMAL.get(suffix, 0))


def canonicalize_quantity(value: t.Any) -> str:
    """Return a quantity as an API server writes it: ``1000m`` is ``1``, ``0.5`` is ``500m``, ``1024Mi`` is ``1Gi``.

    The largest suffix of its family with which the number is whole. ValueError when it is none.
    """
    text = str(value).strip()
    amount = _parse_text(text)
    if _EXPONENT.search(text):
        return text  # kept as it is written
    if text.endswith("i") and abs(amount) >= 1024:
        for suffix, power in reversed(_BINARY.items()):
            number = amount / Decimal(1024) ** power
            if number == number.to_integral_value():
                return f"{number:f}".partition(".")[0] + suffix
        return f"{amount.to_integral_value():f}"
    for suffix, power in sorted([*_DECIMAL.items(), ("", 0)], key=lambda entry: -entry[1]):
        number = amount.scaleb(-power)
        if amount and number == number.to_integral_value():
            return f"{number.to_integral_value():f}" + suffix
    return "0" if not amount else text


def format_quantity(amount: Decimal) -> str:
    """Return a number without an exponent and without zeros at its end."""
    return f"{amount.normalize():f}"


def read_requests(container: Spec, limit_ranges: t.Sequence[Spec] = ()) -> Amounts:
    """Return a container's requests: its own, else its limits, else a LimitRange's default."""
    resources = container.get("resources") or {}
    defaults = _find_defaults(limit_ranges, "defaultRequest")
    return _parse_all({**defaults, **(resources.get("limits") or {}), **(resources.get("requests") or {})})


def read_limits(container: Spec, limit_ranges: t.Sequence[Spec] = ()) -> Amounts:
    """Return a container's limits: its own, else a LimitRange's default."""
    resources = container.get("resources") or {}
    return _parse_all({**_find_defaults(limit_ranges, "default"), **(resources.get("limits") or {})})


def _find_defaults(limit_ranges: t.Sequence[Spec], part: str) -> dict[str, t.Any]:
    """Return what a namespace's LimitRanges give to a container that says nothing; the first one wins."""
    defaults: dict[str, t.Any] = {}
    for limit_range in limit_ranges:
        for limit in (limit_range.get("spec") or {}).get("limits") or []:
            if limit.get("type") == "Container":
                defaults = {**(limit.get(part) or {}), **defaults}
    return defaults


def _parse_all(amounts: t.Mapping[str, t.Any]) -> Amounts:
    return {name: parse_quantity(amount) for name, amount in amounts.items()}


def compute_requests(spec: Spec, limit_ranges: t.Sequence[Spec] = ()) -> Amounts:
    """Return what one pod requests.

    That is the sum of its containers and of its restartable init containers (sidecars), or more while an init container
    runs; what the pod's own resources say instead; and its overhead.
    """
    total = _aggregate(spec, lambda container: read_requests(container, limit_ranges))
    level = spec.get("resources") or {}
    for name, amount in _parse_all(level.get("limits") or {}).items():
        if _is_of_pod_level(name):
            total.setdefault(name, amount)
    total.update(_read_pod_level(level.get("requests")))
    _add(total, _parse_all(spec.get("overhead") or {}))
    return total


def compute_limits(spec: Spec, limit_ranges: t.Sequence[Spec] = ()) -> Amounts:
    """Return what one pod is limited to, summed like its requests. Overhead counts where there is a limit."""
    total = _aggregate(spec, lambda container: read_limits(container, limit_ranges))
    total.update(_read_pod_level((spec.get("resources") or {}).get("limits")))
    overhead = _parse_all(spec.get("overhead") or {})
    _add(total, {name: amount for name, amount in overhead.items() if total.get(name)})
    return total


def _is_of_pod_level(name: str) -> bool:
    """Return whether a pod's own ``resources`` may name it."""
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def _read_pod_level(amounts: t.Mapping[str, t.Any] | None) -> Amounts:
    return {name: amount for name, amount in _parse_all(amounts or {}).items() if _is_of_pod_level(name)}


def _aggregate(spec: Spec, read: t.Callable[[Spec], Amounts]) -> Amounts:
    """Return what the containers need together, or the largest sum while the init containers run one after the other.

    An init container that restarts always stays beside all that follow it.
    """
    total: Amounts = {}
    for container in spec.get("containers") or []:
        _add(total, read(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        amounts = read(container)
        if container.get("restartPolicy") == "Always":
            _add(total, amounts)
            _add(sidecars, amounts)
            _raise_to(peak, sidecars)
        else:
            _add(amounts, sidecars)
            _raise_to(peak, amounts)
    _raise_to(total, peak)
    return total


def _add(total: Amounts, amounts: Amounts) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, Decimal(0)) + amount


def _raise_to(total: Amounts, amounts: Amounts) -> None:
    for name, amount in amounts.items():
        total[name] = max(total.get(name, Decimal(0)), amount)
