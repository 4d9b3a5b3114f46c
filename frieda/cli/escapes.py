"""Escapes in the text of an option: `\\t`, `\\n`, `\\r`, `\\0`, `\\\\` and `\\xHH`, as bytes."""

from __future__ import annotations

import os
import re
from typing import Final

from frieda.errors import ConfigError

_SIMPLE: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"0": b"\0", b"\\": b"\\"}
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.|$)", re.DOTALL)


def unescape(text: str, where: str) -> bytes:
    """The bytes that `text` stands for. Raises ConfigError naming `where` for an escape that is none."""

    def replaced(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1] == b"x" and len(code) == 3:
            return bytes([int(code[1:], 16)])
        if code not in _SIMPLE:
            raise ConfigError(
                f"{where}: \\{code.decode(errors='replace')} is not an escape; "
                "there are \\t \\n \\r \\0 \\\\ and \\xHH"
            )
        return _SIMPLE[code]

    return _ESCAPE.sub(replaced, os.fsencode(text))
