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
from frieda.wire.envelope import RequestEnvelope, request_envelope, split_message
from frieda.wire.messages import APIS, PROTOCOL_VERSION, ApiKey, HelloRequest, ProduceRequest
from frieda.wire.schema import SchemaError, decode_fields

# API, version and correlation id, then the fields of ProduceRequest.
_PRODUCE_TYPES: Final = (int, int, int, bytes, int, int, int)
_PRODUCE: Final = int(ApiKey.PRODUCE)
_new = tuple.__new__


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
        header, body = split_message(message)
        # The hot path: all fields of a produce are checked by one comparison (saves 1.3 us of 3.5).
        if (
            tuple(map(type, header)) == _PRODUCE_TYPES
            and header[0] == _PRODUCE
            and header[1] == 0
            and header[2] >= 0
            and self.state is _OPEN
        ):
            request = _new(ProduceRequest, header[3:])
            return _new(Incoming, (0, 0, header[2], request, body))
        envelope = request_envelope(header, body)
        if self.state is not ServerState.OPEN:
            return self._greeting(envelope)
        api = APIS.get(envelope.api_key)
        if api is None:
            return Refusal(
                envelope.correlation_id,
                ErrorCode.UNSUPPORTED_VERSION,
                f"no API has the number {envelope.api_key}",
            )
        if not api.min_version <= envelope.version <= api.max_version:
            return Refusal(
                envelope.correlation_id,
                ErrorCode.UNSUPPORTED_VERSION,
                f"version {envelope.version} of {api.key.name}; "
                f"this broker speaks {api.min_version} to {api.max_version}",
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

    def _greeting(self, envelope: RequestEnvelope) -> Incoming | Refusal:
        if self.state is ServerState.CLOSED:
            raise RemoteProtocolError("a request after the end of the connection")
        if envelope.api_key != ApiKey.HELLO:
            raise RemoteProtocolError(
                f"the first request must be Hello, not API {envelope.api_key}"
            )
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
