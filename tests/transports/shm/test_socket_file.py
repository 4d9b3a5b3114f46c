import asyncio
import fcntl
import os
import socket
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.errors import AddressInUseError, ConfigError, ConnectError, TransportError
from frieda.testing.transport_pair import open_descriptors, turns
from frieda.transports.shm import socket_file
from frieda.transports.shm.socket_file import (
    MAX_PATH_BYTES,
    SocketFile,
    connect,
    path_of,
    peer_credentials,
)


@pytest.fixture
async def folder(tmp_path):
    await asyncio.to_thread(int)  # what a loop opens once, when it first needs it
    before = open_descriptors()
    yield tmp_path
    assert open_descriptors() == before


@pytest.fixture
def url(folder):
    return f"shm://{folder}/broker.sock"


def close(file):
    file.remove()
    file.sock.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("shm://run/frieda.sock", "shm:///run/frieda.sock"),
        ("shm://", "no address"),
        ("shm:///run/", "names no file"),
        ("shm:///run/a\0b", "names no file"),
        ("shm:///" + "a" * MAX_PATH_BYTES, f"{MAX_PATH_BYTES + 1} bytes"),
        ("shm:///" + "ä" * 54, "109 bytes"),
        ("shm:///\ud800", "no file name"),
    ],
)
def test_paths_that_cannot_be_say_what_is_wrong(url, says):
    with pytest.raises(ConfigError) as caught:
        path_of(url)
    assert says in str(caught.value)
    assert repr(url) in str(caught.value)


@given(st.text(max_size=120))
def test_any_text_is_a_path_that_fits_or_a_config_error(text):
    try:
        path = path_of(f"shm://{text}")
    except ConfigError:
        return
    assert path.startswith("/")
    assert 1 < len(os.fsencode(path)) <= MAX_PATH_BYTES


@pytest.mark.parametrize("umask", [0, 0o22, 0o77])
async def test_the_socket_is_for_its_user_only_from_its_first_moment(url, umask, monkeypatch):
    modes = []
    bind = socket.socket.bind

    class Watching(socket.socket):
        def bind(self, path):
            bind(self, path)
            modes.append(stat.S_IMODE(os.stat(path).st_mode))

    monkeypatch.setattr(socket_file.socket, "socket", Watching)
    before = os.umask(umask)
    try:
        file = await SocketFile.listen(url, 10)
    finally:
        os.umask(before)
    assert modes == [0o600]
    close(file)


async def test_a_connection_knows_who_is_on_the_other_side(url):
    file = await SocketFile.listen(url, 10)
    sock = await connect(url)
    assert peer_credentials(sock) == (os.getpid(), os.geteuid(), os.getegid())
    sock.close()
    close(file)


async def test_a_process_of_another_user_is_refused_and_one_of_root_is_not(url, monkeypatch):
    file = await SocketFile.listen(url, 10)
    sock = await connect(url)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    if own == 0:
        assert peer_credentials(sock).uid == 0
        monkeypatch.setattr(socket_file.struct, "unpack", lambda *_: (7, 1234, 1234))
    with pytest.raises(ConnectError, match="use tcp between users"):
        peer_credentials(sock)
    sock.close()
    close(file)


async def test_a_second_broker_is_refused_and_the_first_lives_on(url):
    file = await SocketFile.listen(url, 10)
    for _ in range(3):
        with pytest.raises(AddressInUseError, match=r"broker\.sock"):
            await SocketFile.listen(url, 10)
    (await connect(url)).close()
    close(file)


async def test_a_broker_whose_backlog_is_full_is_not_taken_for_dead(url):
    file = await SocketFile.listen(url, 0)
    first = await connect(url)
    waiting = asyncio.ensure_future(connect(url))
    await turns()
    with pytest.raises(AddressInUseError):
        await SocketFile.listen(url, 10)
    file.sock.accept()[0].close()
    (await waiting).close()  # it was only waiting
    first.close()
    close(file)


async def test_connecting_gives_up_waiting_for_a_full_backlog_when_cancelled(url):
    file = await SocketFile.listen(url, 0)
    first = await connect(url)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await connect(url)
    first.close()
    close(file)


async def test_what_a_dead_broker_left_is_replaced(url):
    left = await SocketFile.listen(url, 10)
    left.sock.close()
    with pytest.raises(ConnectError, match="no broker listens at this socket any more"):
        await connect(url)
    file = await SocketFile.listen(url, 10)
    (await connect(url)).close()
    left.remove()  # not its own file any more
    (await connect(url)).close()
    close(file)
    close(file)
    with pytest.raises(ConnectError, match="is the broker running"):
        await connect(url)


async def test_of_many_brokers_that_find_a_dead_socket_one_wins(url):
    (await SocketFile.listen(url, 10)).sock.close()
    results = await asyncio.gather(
        *(SocketFile.listen(url, 10) for _ in range(8)), return_exceptions=True
    )
    files = [each for each in results if isinstance(each, SocketFile)]
    assert len(files) == 1
    assert all(isinstance(each, SocketFile | AddressInUseError) for each in results)
    close(files[0])


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_something_that_is_no_socket_is_never_removed(folder, kind):
    path = folder / "thing"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(folder / "elsewhere")
    with pytest.raises(TransportError, match="exists and is no socket"):
        await SocketFile.listen(f"shm://{path}", 10)
    assert "thing" in os.listdir(folder)
    if kind == "file":
        with pytest.raises(ConnectError, match="is no socket"):
            await connect(f"shm://{path}")


async def test_a_socket_of_another_kind_is_never_removed(folder, url):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path_of(url))
        with pytest.raises(TransportError, match="does not say whether it is in use"):
            await SocketFile.listen(url, 10)
    assert os.listdir(folder) == ["broker.sock"]


async def test_a_folder_that_is_not_there_is_named(folder):
    with pytest.raises(TransportError, match=r"missing/a\.sock: cannot listen: No such file"):
        await SocketFile.listen(f"shm://{folder}/missing/a.sock", 10)


async def test_a_folder_that_stays_locked_is_given_up(folder, url, monkeypatch):
    monkeypatch.setattr(socket_file, "LOCK_TIMEOUT_S", 0.05)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TransportError, match="holds a lock"):
        await SocketFile.listen(url, 10)
    os.close(descriptor)
    assert os.listdir(folder) == []
