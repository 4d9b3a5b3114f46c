"""What a stream connection needs of the thing that moves its bytes, and what stands there after the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from frieda.errors import ClosedError
from frieda.transports.base import Bytes

if TYPE_CHECKING:
    from frieda.transports.buffers import Lease


class Wire(Protocol):
    """How the bytes of one connection travel. Nothing here blocks."""

    def write(self, data: Bytes, /) -> int:
        """Take as much as there is room for. Raises BlockingIOError when there is none, OSError when broken."""
        ...

    def writev(self, pieces: Sequence[Bytes], /) -> int:
        """As `write`, for several ranges."""
        ...

    def watch_writable(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` whenever there is room, until called with None."""
        ...

    def set_reading(self, reading: bool) -> None:
        """Start or stop taking bytes from the peer."""
        ...

    def end_output(self) -> None:
        """Tell the peer that nothing more comes. Everything written before still arrives."""
        ...

    def abort(self) -> None:
        """End both directions now and call `wire_lost` on a later turn of the loop. May be repeated."""
        ...


class _Gone:
    """The wire of a connection that has ended."""

    def write(self, _data: Bytes, /) -> int:
        raise BrokenPipeError

    def writev(self, _pieces: Sequence[Bytes], /) -> int:
        raise BrokenPipeError

    def watch_writable(self, callback: Callable[[], None] | None) -> None: ...

    def set_reading(self, reading: bool) -> None: ...

    def end_output(self) -> None: ...

    def abort(self) -> None: ...


GONE: Final = _Gone()


def nobody(message: memoryview, _lease: Lease | None) -> None:
    """The receiver of a connection that has none."""
    raise ClosedError(f"a message of {len(message)} bytes came when nobody takes any")
