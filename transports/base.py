"""The contract that every transport keeps: whole messages in, whole messages out, on one event loop.

A *message* is a non-empty sequence of bytes. The transport frames it, moves it and delivers it whole; it
never looks inside. Messages of one direction arrive each exactly once, or the connection ends. They arrive
in the order they were sent where the transport is `ordered`; where it is not, those of at most
ORDERED_BYTES keep their order among themselves, and a larger one may be overtaken by those sent after it (who
needs more puts numbers into the messages). What differs between transports is only how the bytes travel.

Memory
    A received message is a writable memoryview that is valid *only during the call*. Its receiver may
    change it in place. Who needs it longer calls `BufferPool.keep`, which is free of copying where
    the message has a buffer of its own and a short copy into a pooled buffer where it has not.
    A sent body is borrowed until the transport no longer needs it; if a lease came with it, the transport
    releases it at that moment, also when the connection breaks.

Flow
    `send` never waits and never drops. When more than `high_water_bytes` are queued the receiver is told
    by `sending_paused`, and by `sending_resumed` once all is gone: between the two it should take up no new
    work for this connection. Beyond `hard_limit_bytes`, or when queued bytes make no progress for
    `write_timeout_s`, the connection breaks. `pause_receiving` stops the delivery of messages (at most the
    messages already read by then may still arrive before it takes effect); the peer then feels it.
    A message that has begun to arrive must be complete within `message_timeout_s`.
    Where no buffer is free, receiving pauses by itself until one is.

Errors
    ClosedError: we closed it. BrokenError: the peer or the network did. BusyError: two tasks at once.
    `connection_lost` is called exactly once for every connection that was handed out, on the event loop,
    with None after our own close() or the peer's clean end, else with the TransportError that explains it.
    Nothing is delivered after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

if TYPE_CHECKING:
    from frieda.errors import TransportError
    from frieda.transports.buffers import BufferPool, Lease
    from frieda.transports.polling import PollingEngine

Bytes = bytes | bytearray | memoryview

ORDERED_BYTES: Final = 256
"""Messages up to this size keep their order among themselves on every transport."""

HELD_BYTES: Final = 16 * 1024
"""With `send_hold_s`: so much leaves without waiting any longer (the default batch of Kafka's producer)."""


class Receiver(Protocol):
    """Who gets the messages of one connection. Every method is called on the event loop and must not block.

    An exception that escapes `message_received` breaks the connection with that exception's text.
    """

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        """One whole message. `lease` is the buffer it alone lies in, or None when it lies in a shared one.

        The view is valid during the call only: `BufferPool.keep(message, lease)` makes it last.
        """
        ...

    def sending_paused(self) -> None:
        """More than high_water_bytes are queued."""
        ...

    def sending_resumed(self) -> None:
        """All that was queued is with the kernel or the device."""
        ...

    def connection_lost(self, error: TransportError | None) -> None:
        """The end: called exactly once."""
        ...


class Connection(ABC):
    """One connection. Owned by who connected or accepted it; `close` and `abort` may be called any number of times."""

    @abstractmethod
    def send(self, head: Bytes, body: Bytes | None = None, lease: Lease | None = None) -> None:
        """Send one message: the bytes of `head` then those of `body`.

        It is handed to the wire now when the wire is free, else with all that has queued once it is.
        `head` and `body` must not change until the transport lets go of them; `lease`, when given, is
        released then. Raises LocalProtocolError for an empty or too large message and ClosedError or
        BrokenError after the end; the lease is released in these cases too.
        """

    @property
    @abstractmethod
    def queued_bytes(self) -> int:
        """How much `send` has taken that the kernel or the device has not."""

    @abstractmethod
    def pause_receiving(self) -> None:
        """Deliver no more messages until `resume_receiving`. May be called when paused already."""

    @abstractmethod
    def resume_receiving(self) -> None:
        """Deliver again. May be called when not paused."""

    @abstractmethod
    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what is queued, then end. Aborts when that takes longer than `timeout_s` or is cancelled."""

    @abstractmethod
    def abort(self) -> None:
        """End at once; what is queued is lost. `connection_lost` follows on a later turn of the loop."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """Who is on the other side, for people to read."""


class Listener(ABC):
    """An address that accepts connections until it is closed."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address as a client would write it, with the real port where 0 was asked for."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting. Connections that exist live on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """The bounds of one connection."""

    max_message_bytes: int = 17 * 1024 * 1024
    """The largest message either way; a larger announced size breaks the connection before memory is taken."""
    high_water_bytes: int = 1024 * 1024
    """Queued bytes above which the receiver is told to pause."""
    hard_limit_bytes: int = 64 * 1024 * 1024
    """Queued bytes at which the connection breaks. Never less than two of the largest messages."""
    message_timeout_s: float = 30.0
    """How long a message may take from its first byte to its last."""
    write_timeout_s: float = 30.0
    """How long queued bytes may make no progress."""
    backlog: int = 1024
    """How many connections may wait to be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RdmaSettings:
    """What one side offers for each connection of the RDMA transports; the bootstrap agrees on the smaller."""

    slot_bytes: int = 32 * 1024
    """The size of a receive slot."""
    window: int = 32
    """How many receive slots."""
    source_bytes: int = 4 * 1024 * 1024
    """Memory that the peer may READ from."""
    eager_bytes: int | None = None
    """Larger messages go by rendezvous; None: the channel adapts the threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportRuntime:
    """What all connections of one event loop share. Whoever made it closes the engine and the pool."""

    pool: BufferPool
    engine: PollingEngine
    limits: TransportLimits = TransportLimits()
    rdma: RdmaSettings = RdmaSettings()
    send_hold_s: float = 0.0
    """0: messages leave at once. Above, for comparison: messages are held until HELD_BYTES of them have
    gathered or for so long; 0 < send_hold_s < 0.0005 means one turn of the loop."""


class Transport(ABC):
    """A way to move messages, found by the scheme of a URL (entry point group `frieda.transports`)."""

    scheme: str
    ordered: ClassVar[bool] = True
    """Do all messages of one direction arrive in the order they were sent?"""

    def __init__(self, runtime: TransportRuntime) -> None:
        self.runtime = runtime

    @abstractmethod
    async def connect(
        self, url: str, make_receiver: Callable[[Connection], Receiver], *, timeout_s: float = 10.0
    ) -> Connection:
        """Connect to `url`. Raises ConnectError (which names the url), also when `timeout_s` passes.

        Cancellation leaves no connection behind.
        """

    @abstractmethod
    async def listen(self, url: str, make_receiver: Callable[[Connection], Receiver]) -> Listener:
        """Accept connections at `url`; `make_receiver` is called for each, before its first message.

        Raises AddressInUseError or TransportError, naming the url.
        """
