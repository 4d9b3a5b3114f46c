"""The roofline: which counters are taken, what is said without any, and the points under the roofs.

Few machines that run tests have the counters. A perf of our own stands in for the real one there, which counts
made-up numbers at real times; what loads the broker, and the broker, are real.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from frieda.bench import perf_stat, roofline
from frieda.bench.load import Load
from frieda.bench.results import Results, Run
from frieda.bench.roofline import Counters, find_counters, measure_roofline, measure_roofs
from frieda.bench.roofline_figure import roofline_chart
from frieda.cli.frieda_system import FriedaSystem
from frieda.errors import ConfigError, MissingDependencyError

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]

PERF = """\
#!{python}
import signal, subprocess, sys, time
arguments = sys.argv[1:]
events = arguments[arguments.index("-e") + 1].split(",")
if "--" in arguments:
    code = subprocess.call(arguments[arguments.index("--") + 1:])
    for event in events:
        value = "<not supported>" if event in {missing!r} else "1000000"
        print(f"{{value}},,{{event}},1000,100.00,,", file=sys.stderr)
    sys.exit(code)
ended = False
def end(*_):
    global ended
    ended = True
signal.signal(signal.SIGINT, end)
began = time.monotonic()
with open(arguments[arguments.index("-o") + 1], "w") as output:
    print("# started on a day", file=output)
    number = 0
    while not ended:
        number += 1
        time.sleep(max(0.0, began + number * 0.1 - time.monotonic()))
        at = time.monotonic() - began
        for event in events:
            value = 6400 if event == "instructions" else 1
            print(f"     {{at:.9f}},{{value}},,{{event}},1000,100.00,,", file=output, flush=True)
"""


@pytest.fixture
def perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a perf of our own in the place of the machine's."""

    def put(missing: Sequence[str] = ()) -> None:
        program = tmp_path / "perf"
        program.write_text(PERF.format(python=sys.executable, missing=list(missing)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(perf_stat, "find_program", lambda _: program)

    return put


def test_the_best_counters_of_memory_traffic_that_the_machine_has_are_taken(
    perf: Callable[..., None],
) -> None:
    perf()
    assert find_counters().traffic == ("LLC-load-misses", "LLC-store-misses")
    perf(missing=["LLC-store-misses"])
    assert find_counters().traffic == ("LLC-load-misses",)
    perf(missing=["LLC-store-misses", "LLC-load-misses"])
    assert find_counters().events == ("instructions", "cache-misses")


@pytest.mark.parametrize(
    "missing", [["instructions"], ["LLC-load-misses", "LLC-store-misses", "cache-misses"]]
)
def test_a_machine_without_counters_is_told_so_in_one_sentence(
    perf: Callable[..., None], missing: list[str]
) -> None:
    perf(missing=missing)
    with pytest.raises(MissingDependencyError, match="has no hardware counters") as error:
        find_counters()
    assert missing[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_without_perf_there_is_no_roofline_and_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perf_stat, "find_program", lambda _: None)
    with pytest.raises(MissingDependencyError, match="apt-get install linux-perf"):
        find_counters()


def test_the_broker_is_counted_in_the_measured_part_of_a_real_load(
    perf: Callable[..., None],
) -> None:
    perf()
    load = Load(records=3000, producers=2, rate=3000.0, in_flight=100)
    counters = find_counters()
    run = measure_roofline("frieda tcp", "frieda", FriedaSystem("tcp", "event"), counters, load)
    assert run.records == 3000
    assert run.case == "frieda tcp, 2 producers"
    # Whole intervals of 0.1 s or more within a second of load.
    counted_s = run.extra["counted_s"]
    assert isinstance(counted_s, float)
    assert 0 < counted_s <= run.elapsed_s + 0.2
    instructions, traffic = run.extra["instructions"], run.extra["traffic_bytes"]
    assert isinstance(instructions, float)
    assert isinstance(traffic, float)
    assert instructions / traffic == pytest.approx(6400 / (2 * 64))
    assert run.extra["events"] == list(counters.events)


def test_the_roofs_are_measured_on_this_machine(
    perf: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    perf()
    monkeypatch.setattr(roofline, "_COPY_BYTES", 1024 * 1024)
    monkeypatch.setattr(roofline, "_BUSY_LOOP", "pass")
    roofs = measure_roofs(Counters("instructions", ("cache-misses",)))
    assert roofs.bytes_per_s > 1e6
    assert 0 < roofs.instructions_per_s < 1e9  # a million, in the time that Python takes to start


def counted_run(make_run: MakeRun, producers: int, **extra: object) -> Run:
    counts = {"instructions": 4e9, "traffic_bytes": 1e8, "counted_s": 2.0, "events": ["i", "t"]}
    return make_run(producers=producers, rate=None, extra={**counts, **extra})


def test_points_lie_at_instructions_a_byte_and_instructions_a_second_under_two_roofs(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    roofs = {"roofs": {"instructions_per_s": 1e10, "bytes_per_s": 5e9}}
    runs = [counted_run(make_run, producers) for producers in (16, 1)]
    chart = roofline_chart(make_results(*runs, kind="roofline", extra=roofs))
    assert chart is not None
    assert [tuple(dot) for dot in chart.dots["Frieda tcp"]] == [(40, 2e9, "1"), (40, 2e9, "16")]
    slope, flat = chart.lines["memory bandwidth"], chart.lines["most instructions"]
    assert all(dot.y == pytest.approx(dot.x * 5e9) for dot in slope)
    assert slope[-1] == flat[0]
    assert {dot.y for dot in flat} == {1e10}


def test_nothing_is_drawn_without_counts_or_without_roofs(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    roofs = {"roofs": {"instructions_per_s": 1e10, "bytes_per_s": 5e9}}
    uncounted = make_results(make_run(), kind="roofline", extra=roofs)
    assert roofline_chart(uncounted) is None
    assert roofline_chart(make_results(counted_run(make_run, 1), kind="roofline")) is None


def test_a_damaged_roof_is_refused(make_run: MakeRun, make_results: MakeResults) -> None:
    for value in (0, "high"):
        roofs = {"roofs": {"instructions_per_s": value, "bytes_per_s": 5e9}}
        results = make_results(counted_run(make_run, 1), kind="roofline", extra=roofs)
        with pytest.raises(ConfigError):
            roofline_chart(results)
