"""memory://name, inside one event loop: for tests, and for the conformance suite to be sure of itself.

Two bounded byte pipes stand where TCP has the kernel, beneath the same `StreamConnection`. So a full pipe is
backpressure, a message may arrive in pieces, and a cut may fall inside one. `MemoryFaults` does these things on
purpose, the same way for the same seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final
from weakref import WeakKeyDictionary

from frieda.errors import AddressInUseError, ConnectError
from frieda.transports.address import split_url
from frieda.transports.base import (
    Bytes,
    Connection,
    Listener,
    Receiver,
    Transport,
    TransportRuntime,
)
from frieda.transports.stream import StreamConnection, StreamShare

PIPE_BYTES: Final = 256 * 1024
"""How much one direction holds between two ends: a socket buffer's part."""

MakeReceiver = Callable[[Connection], Receiver]


@dataclass(slots=True, kw_only=True)
class MemoryFaults:
    """What goes wrong on the connections that one MemoryTransport makes. May be changed while they live."""

    seed: int = 0
    cut_after_bytes: int | None = None
    """Reset the connection once one direction has carried so many bytes."""
    delay_s: float = 0.0
    """Every piece travels this long."""
    clogged: bool = False
    """Nothing travels while this is set; call `unclog` to end it."""
    largest_piece_bytes: int | None = None
    """Deliver pieces of random sizes from 1 to this."""
    _random: Random = field(init=False, repr=False)
    _wires: list[_MemoryWire] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def unclog(self) -> None:
        """Let the bytes travel again."""
        self.clogged = False
        for wire in self._wires:
            wire.schedule()

    def piece(self, size_bytes: int) -> int:
        """How many of `size_bytes` travel at once."""
        if self.largest_piece_bytes is None:
            return size_bytes
        return min(size_bytes, self._random.randint(1, self.largest_piece_bytes))


class MemoryTransport(Transport):
    """Connections between parts of one event loop. `faults` hold for those that this transport makes."""

    scheme = "memory"

    def __init__(self, runtime: TransportRuntime, faults: MemoryFaults | None = None) -> None:
        super().__init__(runtime)
        self.faults = faults or MemoryFaults()
        self._share = StreamShare(runtime)

    async def connect(
        self, url: str, make_receiver: MakeReceiver, *, timeout_s: float = 10.0
    ) -> Connection:
        near = self._wires(url)
        near.begin(f"{url} (listener)", make_receiver)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            near.connection.abort()
            raise
        return near.connection

    def connect_raw(self, url: str) -> RawMemoryPeer:
        """A connection to `url` whose near end has no framing. Raises ConnectError."""
        return RawMemoryPeer(self._wires(url))

    async def listen(self, url: str, make_receiver: MakeReceiver) -> Listener:
        name = split_url(url)[1]
        names = _names()
        if name in names:
            raise AddressInUseError(f"{url}: somebody listens under this name already")
        names[name] = listener = MemoryListener(url, name, self._share, make_receiver)
        return listener

    def _wires(self, url: str) -> _MemoryWire:
        """A new pair of wires; the far one is given to the listener on the next turn of the loop."""
        listener = _names().get(split_url(url)[1])
        if listener is None:
            raise ConnectError(f"{url}: cannot connect: nobody listens under this name")
        near, far = _MemoryWire(self._share, self.faults), _MemoryWire(listener.share, self.faults)
        near.other, far.other = far, near
        self.faults._wires += (near, far)
        asyncio.get_running_loop().call_soon(listener.accept, far)
        return near


class MemoryListener(Listener):
    """A name that accepts connections."""

    def __init__(
        self, url: str, name: str, share: StreamShare, make_receiver: MakeReceiver
    ) -> None:
        self.share = share
        self._url = url
        self._name = name
        self._make_receiver = make_receiver

    @property
    def url(self) -> str:
        return self._url

    async def close(self) -> None:
        names = _names()
        if names.get(self._name) is self:
            del names[self._name]

    def accept(self, wire: _MemoryWire) -> None:
        """Begin the listener's end of a new connection."""
        if _names().get(self._name) is not self:
            wire.connection.abort()
            return
        wire.begin(f"{self._url} (client)", self._make_receiver)


class _MemoryWire:
    """One end. `incoming` holds what the other end has written and this one has not read."""

    def __init__(self, share: StreamShare, faults: MemoryFaults) -> None:
        self.other: _MemoryWire
        self.connection = StreamConnection(self, share)
        self.incoming = bytearray()
        self._loop = asyncio.get_running_loop()
        self._faults = faults
        self._carried = 0  # bytes read here since the start
        self._begun = self._gone = self._ended = self._scheduled = False
        self._reading = True
        self._writable: Callable[[], None] | None = None

    def begin(self, peer: str, make_receiver: MakeReceiver) -> None:
        """Make the receiver; from now on bytes are read. Raises what `make_receiver` raises."""
        try:
            self.connection.wire_ready(peer, make_receiver)
        except BaseException:
            self.connection.abort()
            raise
        self._begun = True
        self.schedule()

    def schedule(self) -> None:
        """Look on a later turn of the loop what there is to do."""
        if not self._scheduled and not self._gone:
            self._scheduled = True
            if self._faults.delay_s:
                self._loop.call_later(self._faults.delay_s, self._turn)
            else:
                self._loop.call_soon(self._turn)

    # ---- Wire

    def write(self, data: Bytes, /) -> int:
        other = self.other
        if self._gone or other._gone:
            raise BrokenPipeError("the other end is gone")
        room = PIPE_BYTES - len(other.incoming)
        if room <= 0:
            raise BlockingIOError
        piece = memoryview(data)[:room]
        other.incoming += piece
        other.schedule()
        return len(piece)

    def writev(self, pieces: Sequence[Bytes], /) -> int:
        taken = 0
        for piece in pieces:
            try:
                count = self.write(piece)
            except BlockingIOError:
                if taken:
                    break
                raise
            taken += count
            if count < len(piece):
                break
        return taken

    def watch_writable(self, callback: Callable[[], None] | None) -> None:
        self._writable = callback
        self.schedule()

    def set_reading(self, reading: bool) -> None:
        self._reading = reading
        if reading:
            self.schedule()

    def end_output(self) -> None:
        self.other._ended = True
        self.other.schedule()

    def abort(self) -> None:
        self._lose(None)
        self.end_output()

    # ---- the turn of the loop

    def _turn(self) -> None:
        self._scheduled = False
        if self._gone or not self._begun or self._faults.clogged:
            return
        if self._writable is not None and (
            self.other._gone or len(self.other.incoming) <= PIPE_BYTES // 2
        ):
            self._writable()
        if not self._reading:
            return
        if self.incoming:
            self._read()
        elif self._ended:
            self._reading = False
            self.connection.peer_ended()

    def _read(self) -> None:
        cut = self._faults.cut_after_bytes
        count = self._faults.piece(len(self.incoming))
        if cut is not None:
            count = min(count, cut - self._carried)
            if count <= 0:
                reset = ConnectionResetError("the connection was cut")
                self.other._lose(reset)
                self._lose(reset)
                return
        buffer = self.connection.assembler.get_buffer()
        count = min(count, len(buffer))
        buffer[:count] = self.incoming[:count]
        del self.incoming[:count]
        self._carried += count
        self.schedule()
        self.other.schedule()  # there is room now
        self.connection.bytes_arrived(count)

    def _lose(self, error: Exception | None) -> None:
        if not self._gone:
            self._gone = True
            self._reading = False
            self._writable = None
            self.incoming.clear()
            if self in self._faults._wires:
                self._faults._wires.remove(self)
            self._loop.call_soon(self.connection.wire_lost, error)


_listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, MemoryListener]] = (
    WeakKeyDictionary()
)


def _names() -> dict[str, MemoryListener]:
    return _listeners.setdefault(asyncio.get_running_loop(), {})


class RawMemoryPeer:
    """The far end of a memory connection without framing: for tests of bad input."""

    def __init__(self, wire: _MemoryWire) -> None:
        self._wire = wire

    def write(self, data: bytes) -> None:
        """Send these bytes as they are. Raises BlockingIOError when the pipe is full."""
        self._wire.write(data)

    def close(self) -> None:
        """End the connection after what was written."""
        self._wire.end_output()
