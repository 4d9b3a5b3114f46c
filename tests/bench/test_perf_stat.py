"""What `perf stat` prints, read; and perf itself where it is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.bench import perf_stat
from frieda.bench.perf_stat import Counting, Reading, counting, parse, require_perf, supported
from frieda.errors import ConfigError, FriedaError

# As perf 6.1 writes it, on bare metal and in a virtual machine.
WITH_COUNTERS = """\
# started on Sat Nov 21 10:00:00 2026

8423117902,,instructions,4112030021,100.00,1.93,insn per cycle
1204455,,LLC-load-misses,2056015010,50.00,2.11,of all LL-cache accesses
4112.03,msec,task-clock,4112030021,100.00,0.998,CPUs utilized
9,,cache-misses:u,100,100.00,,
"""
WITHOUT_COUNTERS = """\
<not supported>,,instructions,0,100.00,,
<not counted>,,LLC-load-misses,0,0.00,,
"""
INTERVALS = """\
# started on Sat Nov 21 10:31:19 2026

     0.100000000,1000,,instructions,99000000,100.00,1.9,insn per cycle
     0.100000000,10,,LLC-load-misses,99000000,100.00,,
     0.200000000,3000,,instructions,99000000,100.00,1.9,insn per cycle
     0.200000000,30,,LLC-load-misses,99000000,100.00,,
     0.300000000,<not counted>,,instructions,0,100.00,,
     0.300000000,<not counted>,,LLC-load-misses,0,100.00,,
     0.400000000,5000,,instructions,99000000,100.00,1.9,insn per cycle
     0.400000000,50,,LLC-load-misses,99000000,100.00,,
"""


def installed() -> bool:
    try:
        require_perf()
    except FriedaError:
        return False
    return True


needs_perf = pytest.mark.skipif(not installed(), reason=perf_stat.HOW_TO_GET_IT)


def counted(text: str) -> Counting:
    found = Counting()
    found.began_s = 1000.0
    found.readings = parse(text, intervals=True)
    return found


def test_values_units_events_and_the_share_of_the_time_are_read() -> None:
    assert parse(WITH_COUNTERS) == [
        Reading("instructions", 8423117902.0),
        Reading("LLC-load-misses", 1204455.0, share=0.5),
        Reading("task-clock", 4112.03),
        Reading("cache-misses:u", 9.0),
    ]


def test_a_counter_that_is_not_there_and_one_that_never_ran_are_told_apart() -> None:
    assert parse(WITHOUT_COUNTERS) == [
        Reading("instructions", None, supported=False),
        Reading("LLC-load-misses", None, share=0.0),
    ]


def test_intervals_have_their_end() -> None:
    first, *_, last = parse(INTERVALS, intervals=True)
    assert first == Reading("instructions", 1000.0, at_s=0.1)
    assert (last.event, last.at_s) == ("LLC-load-misses", 0.4)


@pytest.mark.parametrize("text", ["nonsense", "1,2", "1,234,,instructions,0,100,,", "a,,b,1,2,,"])
def test_another_form_is_refused_with_the_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is no line of 'perf stat -x,'"):
        parse(text)


@given(st.text(max_size=200), st.booleans())
def test_garbage_is_read_or_refused_and_nothing_else(text: str, intervals: bool) -> None:
    try:
        readings = parse(text, intervals=intervals)
    except ConfigError:
        return
    assert all(reading.event for reading in readings)


def test_only_intervals_that_lie_wholly_in_the_measured_part_count() -> None:
    sums = counted(INTERVALS).between(1000.05, 1000.45)
    # The first begins before; the third is one in which the processes slept.
    assert sums == {
        "seconds": pytest.approx(0.3),
        "instructions": 8000.0,
        "LLC-load-misses": 80.0,
    }


def test_no_interval_in_the_measured_part_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(FriedaError, match="give more records"):
        counted(INTERVALS).between(1000.11, 1000.19)


def test_a_counter_that_was_left_out_while_others_counted_is_an_error() -> None:
    text = INTERVALS.replace("0.200000000,30,", "0.200000000,<not counted>,")
    with pytest.raises(FriedaError, match="could not count LLC-load-misses all the time"):
        counted(text).between(1000.0, 1000.5)


def test_without_perf_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(perf_stat, "find_program", lambda _: None)
    with pytest.raises(FriedaError, match="apt-get install linux-perf"):
        supported(["instructions"])
    with pytest.raises(FriedaError, match="apt-get install"), counting([1], ["x"], tmp_path):
        raise AssertionError("it must not count")


@needs_perf
def test_a_counter_of_the_kernel_is_there_and_one_that_no_kernel_has_is_not() -> None:
    assert supported(["task-clock", "no-such-event"]) == {
        "task-clock": True,
        "no-such-event": False,
    }


@needs_perf
def test_the_processor_time_of_another_process_is_counted_while_it_lasts(tmp_path: Path) -> None:
    busy = "import sys\nprint('busy', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with counting([process.pid], ["task-clock"], tmp_path) as found:
                output, deadline_s = tmp_path / "perf.csv", time.monotonic() + 60
                while not output.exists() or output.read_text().count("task-clock") < 3:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.05)
        finally:
            process.kill()
    sums = found.between(found.began_s, time.monotonic())
    assert 0 < sums["task-clock"] <= sums["seconds"] * 1000 * 1.5


@needs_perf
def test_a_process_that_is_not_there_cannot_be_counted(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    with (
        pytest.raises(FriedaError, match="perf did not count"),
        counting([process.pid], ["task-clock"], tmp_path),
    ):
        pass
