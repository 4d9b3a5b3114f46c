"""How hard the tests try: little each time they run, much when FRIEDA_EFFORT says so (`make thorough`)."""

from __future__ import annotations

import os
from typing import Final

EFFORT: Final = max(1, int(os.environ.get("FRIEDA_EFFORT", "1")))
"""So many times the examples of an ordinary run."""


def examples(ordinarily: int) -> int:
    """How many examples a property is tried with."""
    return ordinarily * EFFORT
