"""TCP sockets for a URL's host and port: one that is connected, or one for each address to listen at."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Any

from frieda.errors import AddressInUseError, ConnectError, TransportError


async def connected_socket(url: str, host: str, port: int) -> socket.socket:
    """A connected socket to the first address of `host` that answers."""
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    for family, kind, proto, _, address in await _addresses(url, host, port):
        try:
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
        except OSError as error:
            failures.append(str(error))
            continue
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failures.append(f"{address[0]}: {error.strerror or error}")
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise ConnectError(f"{url}: cannot connect: {'; '.join(dict.fromkeys(failures))}")


async def listening_sockets(url: str, host: str, port: int, backlog: int) -> list[socket.socket]:
    """A bound socket for every address of `host`; all have the same port, also where it was 0."""
    sockets: list[socket.socket] = []
    failures: list[str] = []
    try:
        for family, kind, proto, _, address in await _addresses(url, host, port, socket.AI_PASSIVE):
            try:
                sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, proto)
            except OSError as error:  # an address family this machine does not have
                failures.append(str(error))
                continue
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            real_port = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            try:
                sock.bind((address[0], real_port, *address[2:]))
                sock.listen(backlog)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise AddressInUseError(
                        f"{url}: another process listens at this address"
                    ) from error
                if error.errno != errno.EADDRNOTAVAIL:
                    raise TransportError(
                        f"{url}: cannot listen: {error.strerror or error}"
                    ) from error
                sockets.remove(sock)
                sock.close()
                failures.append(f"{address[0]}: {error.strerror or error}")
        if not sockets:
            raise TransportError(f"{url}: cannot listen: {'; '.join(dict.fromkeys(failures))}")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


async def _addresses(url: str, host: str, port: int, flags: int = 0) -> list[tuple[Any, ...]]:
    with suppress(
        socket.gaierror, UnicodeError
    ):  # a numeric address needs no look-up, which would take a thread
        numeric = flags | socket.AI_NUMERICHOST
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric))
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise ConnectError(f"{url}: the host {host!r} cannot be found: {error}") from error
    return list(found)
