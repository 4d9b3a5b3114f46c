"""Which machine this is: two processes that say the same may try to meet in its memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""One value for each boot of a kernel (random(4)); all containers of a host see the same."""


@cache
def host_identity() -> str:
    """The identity of the running kernel; empty, which equals no other, where there is none to read."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_this_host(identity: str) -> bool:
    """Whether a process that said `identity` runs on the same kernel.

    That makes it worth trying, and no more: it may see other files than we do (another container), or be a
    copy of a machine. Who connects must still ask who answers.
    """
    return identity != "" and identity == host_identity()
