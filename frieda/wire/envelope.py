"""The envelope of a native message: header length, msgpack header, raw body.

    request   u32 header size | [api, version, correlation id, field...]        | body
    answer    u32 header size | [correlation id, 0, field...]                   | body
    error     u32 header size | [correlation id, error code, detail]            |

The 4-byte frame size in front belongs to the transport. The body, a record batch or several, is never
inside msgpack, so that it can go from the socket to the file without being touched.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, NamedTuple

import msgpack

from frieda.errors import LocalProtocolError, RemoteProtocolError

HEADER_SIZE: Final = Struct(">I")
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
"""Of an answer. As Python objects a header of hostile content takes up to 70 times its size."""
MAX_REQUEST_HEADER_BYTES: Final = 1024 * 1024
SMALL_HEADER_BYTES: Final = 2048
"""A header up to this size cannot take much whatever is in it (measured: 9 MB), so it is unpacked at once."""
BYTES_PER_CONTAINER: Final = 3
"""A larger request may have one array or map for so many bytes; topics with names of two letters have one for 3.5."""
_SIZE_BYTES: Final = HEADER_SIZE.size

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
_unpack = msgpack.unpackb
_size_of = HEADER_SIZE.unpack_from


class RequestEnvelope(NamedTuple):
    """A request whose fields have not been looked at."""

    api_key: int
    version: int
    correlation_id: int
    fields: tuple[Any, ...]
    body: memoryview


class AnswerEnvelope(NamedTuple):
    """An answer whose fields have not been looked at; `error_code` 0 is success."""

    correlation_id: int
    error_code: int
    fields: tuple[Any, ...]
    body: memoryview


def encode_request(
    api_key: int, version: int, correlation_id: int, fields: tuple[Any, ...]
) -> bytes:
    """The head of a request message; the body follows on the wire. Raises LocalProtocolError where it is too large."""
    header: bytes = _pack((api_key, version, correlation_id, *fields))
    if len(header) > MAX_REQUEST_HEADER_BYTES:
        raise LocalProtocolError(
            f"a request header of {len(header)} bytes; at most {MAX_REQUEST_HEADER_BYTES} can be sent: "
            "ask for fewer things at once"
        )
    return HEADER_SIZE.pack(len(header)) + header


def encode_answer(correlation_id: int, fields: tuple[Any, ...]) -> bytes:
    """The head of an answer message; the body follows it on the wire."""
    header: bytes = _pack((correlation_id, 0, *fields))
    return HEADER_SIZE.pack(len(header)) + header


def encode_error(correlation_id: int, error_code: int, detail: str) -> bytes:
    """A whole answer that is an error."""
    header: bytes = _pack((correlation_id, error_code, detail))
    return HEADER_SIZE.pack(len(header)) + header


def split_message(
    message: memoryview, max_header_bytes: int = MAX_HEADER_BYTES, *, few_containers: bool = False
) -> tuple[tuple[Any, ...], memoryview]:
    """The header of any message, as a tuple of unknown length and types, and the body. Raises RemoteProtocolError."""
    available = len(message)
    if available < _SIZE_BYTES:
        raise RemoteProtocolError(
            f"a message of {available} bytes has no room for its header's size"
        )
    (size_bytes,) = _size_of(message)
    end = _SIZE_BYTES + size_bytes
    if end > available or size_bytes > max_header_bytes:
        raise RemoteProtocolError(
            f"a message of {available} bytes announces a header of {size_bytes}; "
            f"at most {max_header_bytes} are allowed here"
        )
    try:
        if size_bytes <= SMALL_HEADER_BYTES:
            header = _unpack(message[_SIZE_BYTES:end], use_list=False)
        else:
            header = _unpack_large(message[_SIZE_BYTES:end], few_containers)
    except (ValueError, RecursionError, TypeError, msgpack.OutOfData) as error:
        # msgpack's own errors are ValueErrors; a map with an unhashable key is a TypeError.
        reason = str(error) or type(error).__name__
        raise RemoteProtocolError(f"the header of a message is not msgpack: {reason}") from None
    if type(header) is not tuple:
        raise RemoteProtocolError("the header of a message must be an array")
    return header, message[end:]


def _unpack_large(header: memoryview, few_containers: bool) -> Any:
    """Unpack in memory that is bounded by what is there, not by what is announced.

    msgpack makes room for an array as soon as its length is read: nested, 66 kB announce 80 MB. So the header is
    first walked through without making anything (0.2 ms for 64 KiB), and refused where it is not whole.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(header))
    walker.feed(header)
    walker.skip()
    if not few_containers:
        return _unpack(header, use_list=False)
    left = len(header) // BYTES_PER_CONTAINER

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more arrays and maps than one for {BYTES_PER_CONTAINER} bytes")
        return container

    return _unpack(header, use_list=False, object_hook=count, list_hook=count)


def split_request(message: memoryview) -> RequestEnvelope:
    """Raises RemoteProtocolError for anything that is not a request."""
    return request_envelope(*split_message(message, MAX_REQUEST_HEADER_BYTES, few_containers=True))


def request_envelope(header: tuple[Any, ...], body: memoryview) -> RequestEnvelope:
    """A split message as a request. Raises RemoteProtocolError when it is none."""
    if len(header) < 3:
        raise RemoteProtocolError(
            f"a request header of {len(header)} fields; at least 3 are needed"
        )
    api_key, version, correlation_id = header[:3]
    if type(api_key) is not int or type(version) is not int or type(correlation_id) is not int:
        raise RemoteProtocolError(
            "API, version and correlation id of a request must be whole numbers"
        )
    if not 0 <= correlation_id < 2**63:
        raise RemoteProtocolError("the correlation id of a request must be from 0 to 2^63 - 1")
    return RequestEnvelope(api_key, version, correlation_id, header[3:], body)


def split_answer(message: memoryview) -> AnswerEnvelope:
    """Raises RemoteProtocolError for anything that is not an answer."""
    return answer_envelope(*split_message(message))


def answer_envelope(header: tuple[Any, ...], body: memoryview) -> AnswerEnvelope:
    """A split message as an answer. Raises RemoteProtocolError when it is none."""
    if len(header) < 2:
        raise RemoteProtocolError(
            f"an answer header of {len(header)} fields; at least 2 are needed"
        )
    correlation_id, error_code = header[:2]
    if type(correlation_id) is not int or type(error_code) is not int:
        raise RemoteProtocolError(
            "correlation id and error code of an answer must be whole numbers"
        )
    return AnswerEnvelope(correlation_id, error_code, header[2:], body)
