import os
import signal
import subprocess
import sys

import pytest

from frieda.transports import census as census_module
from frieda.transports.census import FRESH_NS, SLOTS, Census, core_mask, usable_cores

NOW_NS = 10**12


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def test_active_processes_are_counted_and_silent_ones_are_not(folder):
    first, second, third = Census(folder), Census(folder), Census(folder)
    now = 10**12
    assert first.active(now) == 1
    first.heartbeat(now)
    second.heartbeat(now)
    assert [each.active(now) for each in (first, second, third)] == [2, 2, 3]
    assert first.active(now + FRESH_NS - 1) == 2
    assert first.active(now + FRESH_NS) == 1
    second.close()
    second.close()
    assert third.active(now) == 2
    first.close()
    third.close()


def test_processes_on_other_cores_are_not_counted(folder, monkeypatch):
    here = Census(folder)
    monkeypatch.setattr(census_module, "core_mask", lambda: 1 << 63)
    elsewhere = Census(folder)
    for each in (here, elsewhere):
        each.heartbeat(5)
    assert (here.active(5), elsewhere.active(5)) == (1, 1)
    here.close()
    elsewhere.close()


def test_the_slot_of_a_process_that_was_killed_is_free_again(folder):
    code = (
        "import sys; from frieda.transports.census import Census;"
        f"c = Census({folder!r}); c.heartbeat({NOW_NS}); print('up', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"up\n"
        mine = Census(folder)
        assert mine.active(NOW_NS) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
    other = Census(folder)
    other.heartbeat(NOW_NS)
    assert mine.active(NOW_NS) == 2  # it took the dead one's slot
    mine.close()
    other.close()


@pytest.mark.parametrize(
    "kind", ["open to others", "a link", "a hard link", "a folder", "missing folder"]
)
def test_a_file_that_cannot_be_trusted_is_not_used_and_says_why(folder, kind):
    path = f"{folder}/frieda-census-{os.geteuid()}"
    if kind == "open to others":
        os.close(os.open(path, os.O_CREAT, 0o600))
        os.chmod(path, 0o644)
    elif kind == "a link":
        os.symlink(f"{folder}/target", path)
    elif kind == "a hard link":
        os.close(os.open(path, os.O_CREAT, 0o600))
        os.link(path, path + "-2")
    elif kind == "a folder":
        os.mkdir(path)
    else:
        folder += "/missing"
    census = Census(folder)
    assert not census.available
    assert "frieda-census" in census.why_unavailable
    census.heartbeat(1)
    assert census.active(1) == 1
    census.close()


def test_when_all_slots_are_taken_the_next_one_goes_without(folder):
    taken = [Census(folder) for _ in range(SLOTS)]
    assert all(each.available for each in taken)
    late = Census(folder)
    assert not late.available
    assert str(SLOTS) in late.why_unavailable
    for each in taken:
        each.close()
    again = Census(folder)
    assert again.available
    again.close()


def test_a_truncated_or_garbled_file_does_no_harm(folder):
    census = Census(folder)
    census.heartbeat(100)
    census.path.write_bytes(os.urandom(1000))
    assert 1 <= census.active(100) <= SLOTS
    os.truncate(census.path, 5)
    assert census.active(100) == 1
    census.close()


def test_usable_cores_follow_the_affinity_and_the_quota(monkeypatch):
    assert usable_cores() <= len(os.sched_getaffinity(0))
    assert core_mask().bit_count() == min(64, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for quota, cores in ((None, 4), (0.5, 1), (2.5, 2), (16.0, 4)):
        monkeypatch.setattr(census_module, "_cgroup_quota", lambda quota=quota: quota)
        assert usable_cores() == cores
