"""The broker's side of a native connection as a state machine: messages in, requests out.

    GREETING   the first request must be Hello
    OPEN       any request; a second Hello is refused
    CLOSED     nothing more

What is wrong with one request is a Refusal: it is answered and the connection lives. What breaks the
framing of requests itself is RemoteProtocolError: the connection is closed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final, NamedTuple

from frieda.errors import ErrorCode, RemoteProtocolError
from frieda.wire.envelope import RequestEnvelope, encode_answer, split_request
from frieda.wire.messages import APIS, PROTOCOL_VERSION, Api, ApiKey, HelloRequest, ProduceResponse
from frieda.wire.produce import REQUEST_HEADER_BYTES, REQUEST_MARK, encode_produced, split_produce
from frieda.wire.schema import SchemaError, decode_fields


class ServerState(Enum):
    GREETING = auto()
    OPEN = auto()
    CLOSED = auto()


class Incoming(NamedTuple):
    """A request that may be worked on. `body` lies in the message and lives as long as it."""

    api_key: int
    version: int
    correlation_id: int
    request: Any
    body: memoryview


class Refusal(NamedTuple):
    """A request that is answered with an error at once."""

    correlation_id: int
    code: ErrorCode
    detail: str


# By a plain name: an enum's member takes 0.1 us to find.
_OPEN: Final = ServerState.OPEN


class ServerProtocol:
    """One connection's greeting and the checks of its requests."""

    __slots__ = ("client", "state")

    def __init__(self) -> None:
        self.state = ServerState.GREETING
        self.client: HelloRequest | None = None

    def receive(self, message: memoryview) -> Incoming | Refusal:
        """One message from the client. Raises RemoteProtocolError."""
        if message and message[0] == REQUEST_MARK:
            return self._produce(message)
        envelope = split_request(message)
        if self.state is not _OPEN:
            return self._greeting(envelope)
        api = APIS.get(envelope.api_key)
        if api is None:
            return Refusal(
                envelope.correlation_id,
                ErrorCode.UNSUPPORTED_VERSION,
                f"no API has the number {envelope.api_key}",
            )
        if not api.min_version <= envelope.version <= api.max_version:
            return _wrong_version(envelope.correlation_id, envelope.version, api)
        if api.key == ApiKey.PRODUCE:
            return Refusal(
                envelope.correlation_id,
                ErrorCode.INVALID_REQUEST,
                "a ProduceRequest has a header of its own, not one of msgpack",
            )
        if api.key == ApiKey.HELLO:
            return Refusal(
                envelope.correlation_id, ErrorCode.INVALID_REQUEST, "Hello is sent once, and first"
            )
        try:
            request = decode_fields(api.request, envelope.fields)
        except SchemaError as error:
            return Refusal(envelope.correlation_id, ErrorCode.INVALID_REQUEST, str(error))
        return Incoming(
            envelope.api_key, envelope.version, envelope.correlation_id, request, envelope.body
        )

    def close(self) -> None:
        """The connection ended."""
        self.state = ServerState.CLOSED

    def _produce(self, message: memoryview) -> Incoming | Refusal:
        version, correlation_id, request = split_produce(message)
        if self.state is not _OPEN:
            raise self._not_hello(ApiKey.PRODUCE)
        api = APIS[ApiKey.PRODUCE]
        if not api.min_version <= version <= api.max_version:
            return _wrong_version(correlation_id, version, api)
        return Incoming(
            ApiKey.PRODUCE, version, correlation_id, request, message[REQUEST_HEADER_BYTES:]
        )

    def _not_hello(self, api_key: int) -> RemoteProtocolError:
        if self.state is ServerState.CLOSED:
            return RemoteProtocolError("a request after the end of the connection")
        return RemoteProtocolError(f"the first request must be Hello, not API {int(api_key)}")

    def _greeting(self, envelope: RequestEnvelope) -> Incoming | Refusal:
        if self.state is ServerState.CLOSED or envelope.api_key != ApiKey.HELLO:
            raise self._not_hello(envelope.api_key)
        try:
            hello = decode_fields(HelloRequest, envelope.fields)
        except SchemaError as error:
            return Refusal(envelope.correlation_id, ErrorCode.INVALID_REQUEST, str(error))
        if (
            envelope.version != 0
            or not hello.min_protocol_version <= PROTOCOL_VERSION <= hello.max_protocol_version
        ):
            return Refusal(
                envelope.correlation_id,
                ErrorCode.UNSUPPORTED_VERSION,
                f"the client speaks protocol versions {hello.min_protocol_version} to "
                f"{hello.max_protocol_version}, this broker {PROTOCOL_VERSION}",
            )
        self.client = hello
        self.state = ServerState.OPEN
        return Incoming(
            envelope.api_key, envelope.version, envelope.correlation_id, hello, envelope.body
        )


def answer_head(correlation_id: int, response: tuple[Any, ...]) -> bytes:
    """The head of an answer that is not an error, in the form that its request asked for."""
    if type(response) is ProduceResponse:
        return encode_produced(correlation_id, *response)
    return encode_answer(correlation_id, response)


def _wrong_version(correlation_id: int, version: int, api: Api) -> Refusal:
    return Refusal(
        correlation_id,
        ErrorCode.UNSUPPORTED_VERSION,
        f"version {version} of {api.key.name}; "
        f"this broker speaks {api.min_version} to {api.max_version}",
    )
