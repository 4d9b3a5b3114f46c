"""A scripted broker for tests of clients: the native protocol over any transport, its log in memory.

Every API is one function of an `Exchange` (fake_apis.py), in `FakeBroker.handlers`; a test replaces the one
that shall misbehave and may call the original from its own (franz-go's kfake works the same way):

    async with FakeBroker("memory://b") as broker:
        broker.create_topic("t", partitions=2)
        held = broker.hold(ApiKey.PRODUCE)                 # answers late: held.popleft().proceed()
        broker.fail_next(ApiKey.PRODUCE, ErrorCode.BUSY)   # with an error, once
        broker.lose_next_answer(ApiKey.PRODUCE)            # done, but the connection ends
        broker.handlers[ApiKey.METADATA] = lambda exchange: None     # or never

It keeps the rules that clients rely on: sequence numbers, duplicates answered with their offset, early
batches refused (not parked), long polls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from frieda.config import KIB, MIB
from frieda.errors import BrokerError, ErrorCode, TransportError
from frieda.model import Record
from frieda.protocol.server import Incoming, Refusal, ServerProtocol, answer_head
from frieda.testing.fake_apis import DEFAULTS, MAX_MESSAGE_BYTES, Handler, Poll
from frieda.testing.fake_log import FakePartition, FakeTopic
from frieda.transports.base import Connection, Listener, TransportLimits, TransportRuntime
from frieda.transports.buffers import BufferPool
from frieda.transports.polling import PollingEngine
from frieda.transports.registry import open_transport
from frieda.wire import messages as m
from frieda.wire.envelope import encode_error
from frieda.wire.messages import ApiKey

if TYPE_CHECKING:
    from frieda.transports.buffers import Lease


class Exchange:
    """One request and the way to answer it, now or later, once."""

    def __init__(self, broker: FakeBroker, session: _Session, incoming: Incoming) -> None:
        self.broker = broker
        self.connection = session.connection
        self.api_key = ApiKey(incoming.api_key)
        self.request: Any = incoming.request
        self.body = bytes(incoming.body)
        self.answered = False
        self._session = session
        self._correlation_id = incoming.correlation_id

    def answer(self, response: tuple[Any, ...], body: bytes | None = None) -> None:
        """Answer with one of the response messages. Into a connection that has ended: into the void."""
        if not self.answered:
            self.answered = True
            self._session.send(answer_head(self._correlation_id, response), body)

    def fail(self, code: ErrorCode, detail: str = "") -> None:
        """Answer with an error."""
        if not self.answered:
            self.answered = True
            self._session.send(encode_error(self._correlation_id, int(code), detail), None)

    def proceed(self) -> None:
        """Let the broker's own handler do it, now."""
        self.broker.handle(self, self.broker.defaults[self.api_key])


class FakeBroker:
    """One broker at `url`. Owner: the test, by `async with` or `start` and `stop`; what it stores outlives a stop."""

    def __init__(
        self,
        url: str = "memory://broker",
        *,
        broker_id: int = 0,
        max_in_flight: int = 256,
        auto_create_topics: bool = False,
    ) -> None:
        self.url = url
        self.broker_id = broker_id
        self.max_in_flight = max_in_flight
        self.auto_create_topics = auto_create_topics
        self.topics: dict[str, FakeTopic] = {}
        self.committed: dict[str, dict[tuple[str, int], m.CommittedOffset]] = {}
        self.requests: list[tuple[ApiKey, Any]] = []
        """Every request that arrived, Hello included."""
        self.defaults: dict[ApiKey, Handler] = dict(DEFAULTS)
        self.handlers: dict[ApiKey, Handler] = dict(self.defaults)
        self.next_producer_id = 1000
        self.polls: set[Poll] = set()
        self._sessions: set[_Session] = set()
        self._listener: Listener | None = None
        self._pool: BufferPool | None = None
        self._engine: PollingEngine | None = None
        self._all_ended: asyncio.Future[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; `url` then has the real port. May follow a `stop`."""
        classes = {4 * KIB: 64, 64 * KIB: 16, MIB: 8, MAX_MESSAGE_BYTES: 1}
        self._pool = BufferPool(classes)
        self._engine = PollingEngine("event")
        self._engine.start(asyncio.get_running_loop())
        limits = TransportLimits(max_message_bytes=MAX_MESSAGE_BYTES)
        runtime = TransportRuntime(pool=self._pool, engine=self._engine, limits=limits)
        self._listener = await open_transport(self.url, runtime).listen(self.url, self._accept)
        self.url = self._listener.url

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        for session in list(self._sessions):
            session.connection.abort()
        for poll in list(self.polls):
            poll.cancel()
        if self._sessions:
            self._all_ended = asyncio.get_running_loop().create_future()
            await self._all_ended
        if self._engine is not None:
            self._engine.close()
        if self._pool is not None:
            self._pool.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- scripting ----------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> FakeTopic:
        """Make a topic."""
        topic = self.topics[name] = FakeTopic(name, partitions, configs)
        return topic

    def hold(self, api_key: ApiKey) -> deque[Exchange]:
        """Answer nothing of this API from now on: the exchanges gather in the deque for the test to finish."""
        held: deque[Exchange] = deque()
        self.handlers[api_key] = held.append
        return held

    def release(self, api_key: ApiKey) -> None:
        """Answer this API by itself again."""
        self.handlers[api_key] = self.defaults[api_key]

    def fail_next(self, api_key: ApiKey, code: ErrorCode, times: int = 1) -> None:
        """Answer the next requests of this API with an error, without doing them."""
        before = self.handlers[api_key]
        left = times

        def handler(exchange: Exchange) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self.handlers[api_key] = before
            exchange.fail(code, "as the script says")

        self.handlers[api_key] = handler

    def lose_next_answer(self, api_key: ApiKey) -> None:
        """Do the next request of this API, then cut the connection in place of an answer."""
        before = self.handlers[api_key]

        def handler(exchange: Exchange) -> None:
            self.handlers[api_key] = before
            lost = exchange.connection
            exchange._session.mute = True
            self.defaults[api_key](exchange)
            lost.abort()

        self.handlers[api_key] = handler

    def cut_connections(self) -> None:
        """End every connection; clients may come back."""
        for session in list(self._sessions):
            session.connection.abort()

    def count(self, api_key: ApiKey) -> int:
        """How many requests of this API arrived."""
        return sum(1 for key, _ in self.requests if key == api_key)

    def records(self, topic: str, partition: int = 0) -> list[Record]:
        """All that is stored in a partition."""
        return self.topics[topic].partitions[partition].records(topic, partition)

    def partition(self, topic_id: bytes, partition: int) -> FakePartition:
        """A partition by its topic's id. Raises BrokerError."""
        for topic in self.topics.values():
            if topic.topic_id == topic_id:
                if 0 <= partition < len(topic.partitions):
                    return topic.partitions[partition]
                raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"no partition {partition}")
        raise BrokerError(ErrorCode.UNKNOWN_TOPIC_ID, topic_id.hex())

    def appended(self) -> None:
        """Look at the long polls again; call it after adding to a log by hand."""
        for poll in list(self.polls):
            poll.look()

    def handle(self, exchange: Exchange, handler: Handler) -> None:
        """Run a handler; a BrokerError it raises is the answer."""
        try:
            handler(exchange)
        except BrokerError as error:
            exchange.fail(error.code, error.detail)

    @property
    def connection_count(self) -> int:
        return len(self._sessions)

    def _ended(self, session: _Session) -> None:
        self._sessions.discard(session)
        if not self._sessions and self._all_ended is not None:
            self._all_ended.set_result(None)
            self._all_ended = None

    def _accept(self, connection: Connection) -> _Session:
        session = _Session(self, connection)
        self._sessions.add(session)
        return session


class _Session:
    """One connection of the fake broker."""

    def __init__(self, broker: FakeBroker, connection: Connection) -> None:
        self.connection = connection
        self.mute = False
        self._broker = broker
        self._protocol = ServerProtocol()
        self._alive = True

    def send(self, head: bytes, body: bytes | None) -> None:
        if self._alive and not self.mute:
            with contextlib.suppress(TransportError):  # it has ended, and we hear of it in a moment
                self.connection.send(head, body)

    def message_received(self, message: memoryview, lease: Lease | None) -> None:
        incoming = self._protocol.receive(message)
        if isinstance(incoming, Refusal):
            head = encode_error(incoming.correlation_id, int(incoming.code), incoming.detail)
            self.send(head, None)
            return
        exchange = Exchange(self._broker, self, incoming)
        self._broker.requests.append((exchange.api_key, exchange.request))
        self._broker.handle(exchange, self._broker.handlers[exchange.api_key])

    def sending_paused(self) -> None: ...

    def sending_resumed(self) -> None: ...

    def connection_lost(self, error: TransportError | None) -> None:
        self._alive = False
        self._protocol.close()
        self._broker._ended(self)
