"""Cuts bytes that come in chunks into lines, exactly as they are. PURE."""

from __future__ import annotations

from frieda.errors import ConfigError


class LineReader:
    """Lines without their newline. Nothing is decoded; a carriage return is part of the line."""

    def __init__(self, max_line_bytes: int) -> None:
        self.lines = 0
        """How many were cut."""
        self._max_line_bytes = max_line_bytes
        self._parts: list[bytes] = []
        self._partial_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in `chunk`. Raises ConfigError for one longer than a record can be."""
        first, *rest = chunk.split(b"\n")
        self._partial_bytes += len(first)
        self._parts.append(first)
        longest = max([self._partial_bytes, *map(len, rest)])
        if longest > self._max_line_bytes:
            raise ConfigError(
                f"a line after line {self.lines} has {longest} bytes or more; a record can hold "
                f"{self._max_line_bytes}: raise max_frame_bytes here and at the broker, or cut it"
            )
        if not rest:
            return []
        lines = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        self._partial_bytes = len(rest[-1])
        self.lines += len(lines)
        return lines

    def end(self) -> list[bytes]:
        """The last line when it had no newline, else nothing."""
        last = b"".join(self._parts)
        self._parts, self._partial_bytes = [], 0
        self.lines += bool(last)
        return [last] if last else []
