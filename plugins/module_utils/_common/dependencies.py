# Copyright (c) 2026 The lowtide.ops team
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Third-party libraries, imported where they are needed.

Private to lowtide.ops: do not import from other collections.
"""

from __future__ import annotations

import importlib
import sys
import typing as t

from .errors import Refusal


def require(library: str, *, package: str, why: str) -> t.Any:
    """Import ``library`` (a dotted module name) or refuse, naming the package, this interpreter and the reason."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise Refusal(
            obj=f"Python library {package}",
            problem=f"{sys.executable} cannot import {library} ({error}), which is needed {why}",
            next_step=f"Install it for that interpreter (pip install {package}) or set ansible_python_interpreter",
        ) from error
