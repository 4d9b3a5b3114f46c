import fcntl
import os

import pytest

from frieda.errors import RemoteProtocolError, TransportError
from frieda.testing.transport_pair import open_descriptors
from frieda.transports.shm.region import SEALS, check_bell, create_region, make_bell, open_region

SIZE = 64 * 1024


@pytest.fixture(autouse=True)
def nothing_stays_open():
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def memory():
    """The descriptor of a region."""
    region, descriptor = create_region(SIZE)
    region.close()
    yield descriptor
    os.close(descriptor)


def plain_memfd(size=SIZE, seals=0):
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_what_one_side_writes_the_other_reads():
    region, descriptor = create_region(SIZE)
    other = open_region(descriptor, SIZE)
    assert other[:] == bytes(SIZE)
    region[100:105] = b"hello"
    assert other[100:105] == b"hello"
    region.close()
    os.close(descriptor)
    assert other[100:105] == b"hello"
    other.close()


def test_the_memory_can_be_neither_cut_nor_grown_nor_unsealed(memory):
    for change in (SIZE - 1, 0, SIZE + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, change)
    with pytest.raises(PermissionError):
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert not os.get_inheritable(memory)


@pytest.mark.parametrize("size", [SIZE - 4096, SIZE + 4096, 0])
def test_another_size_than_agreed_is_refused(size):
    descriptor = plain_memfd(size, SEALS)
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
        open_region(descriptor, SIZE)
    os.close(descriptor)


@pytest.mark.parametrize(
    "seals", [0, fcntl.F_SEAL_SHRINK, SEALS & ~fcntl.F_SEAL_SHRINK, SEALS & ~fcntl.F_SEAL_SEAL]
)
def test_memory_that_could_still_shrink_is_refused(seals):
    descriptor = plain_memfd(SIZE, seals)
    with pytest.raises(RemoteProtocolError, match="change its size"):
        open_region(descriptor, SIZE)
    os.close(descriptor)


def test_a_file_a_pipe_and_an_eventfd_are_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(bytes(SIZE))
    reader, writer = os.pipe()
    for descriptor in (os.open(tmp_path / "file", os.O_RDWR), make_bell(), reader, writer):
        with pytest.raises(RemoteProtocolError, match="no shared memory"):
            open_region(descriptor, SIZE)
        os.close(descriptor)


def test_a_bell_is_an_eventfd_that_never_blocks_and_nothing_else(memory):
    blocking = os.eventfd(0, os.EFD_CLOEXEC)
    check_bell(blocking)
    assert not os.get_blocking(blocking)
    os.close(blocking)
    with pytest.raises(RemoteProtocolError, match="eventfd belongs"):
        check_bell(memory)


def test_a_process_out_of_descriptors_says_so(monkeypatch):
    def full(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    monkeypatch.setattr(os, "eventfd", full)
    with pytest.raises(TransportError, match=f"{SIZE} bytes.*Too many open files"):
        create_region(SIZE)
    with pytest.raises(TransportError, match="Too many open files"):
        make_bell()


def test_a_mapping_that_cannot_be_made_leaves_nothing_open(memory):
    with pytest.raises(TransportError, match="cannot make"):
        create_region(2**62)
