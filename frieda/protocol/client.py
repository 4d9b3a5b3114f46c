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
from frieda.wire.envelope import AnswerEnvelope, encode_request, split_answer
from frieda.wire.messages import (
    API_OF_REQUEST,
    APIS,
    PROTOCOL_VERSION,
    Api,
    ApiKey,
    HelloRequest,
    HelloResponse,
)
from frieda.wire.produce import ANSWER_MARK, encode_produce, split_produced
from frieda.wire.schema import SchemaError, decode_fields

PRODUCE: Final = APIS[ApiKey.PRODUCE]

InFlight = tuple[Api, Any]
"""A request without an answer: its API, and what the caller keeps with it."""


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
    kept: Any = None
    """What the caller kept with the request."""


# By a plain name: an enum's member takes 0.1 us to find.
_OPEN: Final = ClientState.OPEN


class ClientProtocol:
    """One connection's correlation ids, credit and versions.

    in_flight: correlation id -> InFlight, for as long as an answer may come. max_in_flight: the broker's credit.
    Both, and next_correlation_id, are for the connection, which makes and answers a produce by hand.
    """

    def __init__(self, *, client_id: str, software: str, max_message_bytes: int) -> None:
        self.state = ClientState.GREETING
        self.broker: HelloResponse | None = None
        self.in_flight: dict[int, InFlight] = {}
        self.max_in_flight = 1
        self.next_correlation_id = 1
        self._hello = HelloRequest(
            PROTOCOL_VERSION, PROTOCOL_VERSION, software, client_id, max_message_bytes
        )
        self._versions: dict[int, int] = {}

    @property
    def credit(self) -> int:
        """How many more requests the broker will work on at once."""
        return self.max_in_flight - len(self.in_flight)

    def greet(self, kept: Any = None) -> Outgoing:
        """The Hello that opens the connection."""
        if self.state is not ClientState.GREETING or self.in_flight:
            raise LocalProtocolError("Hello is sent once, and first")
        return self._outgoing(API_OF_REQUEST[HelloRequest], 0, self._hello, kept)

    def request(self, request: Any, kept: Any = None) -> Outgoing:
        """Any other request. Raises LocalProtocolError before Hello, after the end or without credit,
        BrokerError(UNSUPPORTED_VERSION) for an API that this broker does not have."""
        if self.state is not _OPEN:
            raise LocalProtocolError(f"no request can be sent while {self.state.name.lower()}")
        if len(self.in_flight) >= self.max_in_flight:
            raise LocalProtocolError(f"{self.max_in_flight} requests are in flight already")
        api = API_OF_REQUEST[type(request)]
        return self._outgoing(api, self.version_of(api), request, kept)

    def speaks(self, api: Api) -> bool:
        """Do the broker and this client share a version of that API?"""
        return api.key in self._versions

    def version_of(self, api: Api) -> int:
        """The version to speak. Raises BrokerError(UNSUPPORTED_VERSION) when there is none in common."""
        version = self._versions.get(api.key)
        if version is None:
            raise BrokerError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the broker and this client share no version of {api.key.name}",
            )
        return version

    def forget(self, correlation_id: int) -> None:
        """Give back the credit of a request that will have no answer (a produce with acks=0)."""
        self.in_flight.pop(correlation_id, None)

    def receive(self, message: memoryview) -> Answer | None:
        """One message from the broker; None when it is an answer nobody waits for.

        That is an error for a produce with acks=0. Raises RemoteProtocolError.
        """
        if message and message[0] == ANSWER_MARK:
            return self._produced(message)
        envelope = split_answer(message)
        correlation_id = envelope.correlation_id
        api, kept = self.in_flight.get(correlation_id, (None, None))
        if api is None:
            if envelope.error_code == 0 or self.state is not ClientState.OPEN:
                raise _not_in_flight(correlation_id)
            return None
        response = error = None
        if envelope.error_code:
            error = _error_of(envelope.error_code, envelope.fields)
        else:
            response = _response(api, envelope)
            if self.state is ClientState.GREETING:
                self._greeted(response)
        del self.in_flight[correlation_id]
        return Answer(correlation_id, response, envelope.body, error, kept)

    def close(self) -> list[InFlight]:
        """The connection ended: the requests that will have no answer."""
        self.state = ClientState.CLOSED
        orphans = list(self.in_flight.values())
        self.in_flight.clear()
        return orphans

    def _produced(self, message: memoryview) -> Answer:
        correlation_id, response = split_produced(message)
        api, kept = self.in_flight.get(correlation_id, (None, None))
        if api is not PRODUCE:
            raise _not_in_flight(correlation_id)
        del self.in_flight[correlation_id]
        return Answer(correlation_id, response, message[:0], None, kept)

    def _outgoing(self, api: Api, version: int, request: Any, kept: Any) -> Outgoing:
        correlation_id = self.next_correlation_id
        self.next_correlation_id = correlation_id + 1
        head = request_head(correlation_id, request, version)
        self.in_flight[correlation_id] = (api, kept)
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
        self.max_in_flight = hello.max_in_flight
        self.broker = hello
        self.state = ClientState.OPEN


def request_head(correlation_id: int, request: Any, version: int = 0) -> bytes:
    """The head of any request's message; its body follows. Raises LocalProtocolError."""
    api = API_OF_REQUEST[type(request)]
    if api is PRODUCE:
        return encode_produce(correlation_id, request, version)
    return encode_request(api.key, version, correlation_id, request)


def _response(api: Api, envelope: AnswerEnvelope) -> Any:
    """Raises RemoteProtocolError."""
    try:
        if api is PRODUCE:
            raise SchemaError("its header is of msgpack")
        return decode_fields(api.response, envelope.fields)
    except SchemaError as error:
        raise RemoteProtocolError(f"an answer to {api.key.name} does not fit: {error}") from None


def _not_in_flight(correlation_id: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"an answer to request {correlation_id}, which is not in flight")


def _error_of(code: int, fields: tuple[Any, ...]) -> BrokerError:
    detail = fields[0] if fields and isinstance(fields[0], str) else ""
    try:
        return BrokerError(ErrorCode(code), detail)
    except ValueError:
        return BrokerError(
            ErrorCode.UNKNOWN_SERVER_ERROR, f"error {code}, unknown to this client: {detail}"
        )
