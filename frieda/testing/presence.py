"""Tests against a real peer: skipped where it is not installed, but never in CI, which installs them all."""

from __future__ import annotations

import os
from typing import Protocol

import pytest


class MaybeMissing(Protocol):
    """A driver or a system."""

    def missing(self) -> str | None:
        """None when it is there, else a sentence."""
        ...


def require(*needed: MaybeMissing) -> None:
    """Skip the test, with the sentence, when one of them is missing; fail it when CI=true."""
    for each in needed:
        missing = each.missing()
        if missing is not None and os.environ.get("CI") == "true":
            pytest.fail(missing)
        if missing is not None:
            pytest.skip(missing)
