"""The client's side of a native connection as a state machine: messages in, answers out.

    GREETING   only Hello may be sent, and one answer is waited for
    OPEN       requests go out as long as there is credit; answers come back in any order
    CLOSED     nothing more

A wrong answer (unknown correlation id, fields that do not fit) raises RemoteProtocolError, and nothing else
is ever raised for what the peer sends.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final, NamedTuple

from frieda.errors import BrokerError, ErrorCode, LocalProtocolError, RemoteProtocolError
from frieda.wire.envelope import answer_envelope, encode_request, split_message
from frieda.wire.messages import (
    API_OF_REQUEST,
    APIS,
    PROTOCOL_VERSION,
    Api,
    ApiKey,
    HelloRequest,
    HelloResponse,
    ProduceResponse,
)
from frieda.wire.schema import SchemaError, decode_fields

_PRODUCE: Final = APIS[ApiKey.PRODUCE]
# Correlation id and error code, then the fields of ProduceResponse.
_PRODUCED_TYPES: Final = (int, int, int, int)
_new = tuple.__new__


class ClientState(Enum):
    GREETING = auto()
    OPEN = auto()
    CLOSED = auto()


class Outgoing(NamedTuple):
    """A request ready for the wire: its correlation id and the head of its message."""

    correlation_id: int
    head: bytes


class Answer(NamedTuple):
    """What came back for one request: a response and its body, or an error."""

    correlation_id: int
    response: Any
    body: memoryview
    error: BrokerError | None


# By a plain name: an enum's member takes 0.1 us to find.
_OPEN: Final = ClientState.OPEN


class ClientProtocol:
    """One connection's correlation ids, credit and versions."""

    def __init__(self, *, client_id: str, software: str, max_message_bytes: int) -> None:
        self.state = ClientState.GREETING
        self.broker: HelloResponse | None = None
        self._hello = HelloRequest(
            PROTOCOL_VERSION, PROTOCOL_VERSION, software, client_id, max_message_bytes
        )
        self._next_correlation_id = 1
        self._in_flight: dict[int, Api] = {}
        self._versions: dict[int, int] = {}
        self._max_in_flight = 1

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return len(self._in_flight)

    @property
    def credit(self) -> int:
        """How many more requests the broker will work on at once."""
        return self._max_in_flight - len(self._in_flight)

    def greet(self) -> Outgoing:
        """The Hello that opens the connection."""
        if self.state is not ClientState.GREETING or self._in_flight:
            raise LocalProtocolError("Hello is sent once, and first")
        return self._outgoing(API_OF_REQUEST[HelloRequest], 0, self._hello)

    def request(self, request: Any) -> Outgoing:
        """Any other request. Raises LocalProtocolError before Hello, after the end or without credit,
        BrokerError(UNSUPPORTED_VERSION) for an API that this broker does not have."""
        if self.state is not _OPEN:
            raise LocalProtocolError(f"no request can be sent while {self.state.name.lower()}")
        if len(self._in_flight) >= self._max_in_flight:
            raise LocalProtocolError(f"{self._max_in_flight} requests are in flight already")
        api = API_OF_REQUEST[type(request)]
        version = self._versions.get(api.key)
        if version is None:
            raise BrokerError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the broker and this client share no version of {api.key.name}",
            )
        return self._outgoing(api, version, request)

    def forget(self, correlation_id: int) -> None:
        """Give back the credit of a request that will have no answer (a produce with acks=0)."""
        self._in_flight.pop(correlation_id, None)

    def receive(self, message: memoryview) -> Answer | None:
        """One message from the broker; None when it is an answer nobody waits for.

        That is an error for a produce with acks=0. Raises RemoteProtocolError.
        """
        header, body = split_message(message)
        # The hot path: both fields of a produce's answer are checked by one comparison.
        if (
            tuple(map(type, header)) == _PRODUCED_TYPES
            and header[1] == 0
            and self._in_flight.get(header[0]) is _PRODUCE
        ):
            del self._in_flight[header[0]]
            response = _new(ProduceResponse, header[2:])
            return _new(Answer, (header[0], response, body, None))
        envelope = answer_envelope(header, body)
        api = self._in_flight.pop(envelope.correlation_id, None)
        if api is None:
            if envelope.error_code == 0 or self.state is not ClientState.OPEN:
                raise RemoteProtocolError(
                    f"an answer to request {envelope.correlation_id}, which is not in flight"
                )
            return None
        if envelope.error_code:
            error = _error_of(envelope.error_code, envelope.fields)
            return Answer(envelope.correlation_id, None, envelope.body, error)
        try:
            response = decode_fields(api.response, envelope.fields)
        except SchemaError as error:
            raise RemoteProtocolError(
                f"an answer to {api.key.name} does not fit: {error}"
            ) from None
        if self.state is ClientState.GREETING:
            self._greeted(response)
        return Answer(envelope.correlation_id, response, envelope.body, None)

    def close(self) -> list[int]:
        """The connection ended: the correlation ids that will have no answer."""
        self.state = ClientState.CLOSED
        orphans = list(self._in_flight)
        self._in_flight.clear()
        return orphans

    def _outgoing(self, api: Api, version: int, request: Any) -> Outgoing:
        correlation_id = self._next_correlation_id
        self._next_correlation_id = correlation_id + 1
        head = encode_request(api.key, version, correlation_id, request)
        self._in_flight[correlation_id] = api
        return Outgoing(correlation_id, head)

    def _greeted(self, hello: HelloResponse) -> None:
        if hello.protocol_version != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                f"the broker chose protocol version {hello.protocol_version}, which was not offered"
            )
        if hello.max_in_flight < 1 or hello.max_message_bytes < 1:
            raise RemoteProtocolError("the broker's limits leave no room for a request")
        theirs = {item.api_key: item for item in hello.apis}
        for api in API_OF_REQUEST.values():
            offered = theirs.get(api.key)
            if offered is None:
                continue
            version = min(api.max_version, offered.max_version)
            if version >= max(api.min_version, offered.min_version):
                self._versions[api.key] = version
        self._max_in_flight = hello.max_in_flight
        self.broker = hello
        self.state = ClientState.OPEN


def _error_of(code: int, fields: tuple[Any, ...]) -> BrokerError:
    detail = fields[0] if fields and isinstance(fields[0], str) else ""
    try:
        return BrokerError(ErrorCode(code), detail)
    except ValueError:
        return BrokerError(
            ErrorCode.UNKNOWN_SERVER_ERROR, f"error {code}, unknown to this client: {detail}"
        )
