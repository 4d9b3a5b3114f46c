"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A noisy machine must not fail a test for being slow; pytest's own timeout ends one that hangs.
settings.register_profile("frieda", deadline=None, print_blob=True)
settings.load_profile("frieda")
