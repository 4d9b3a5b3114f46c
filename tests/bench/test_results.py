"""The file of results: what is written is read again, and anything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.bench.histogram import LatencyHistogram
from frieda.bench.report import latencies_us
from frieda.bench.results import RESULT_FILE, Results, Run, all_runs, read_results, write_results
from frieda.errors import ConfigError
from frieda.testing.effort import examples

TEXT = st.text(max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXT
FACTS = st.dictionaries(TEXT, SCALARS, max_size=4)
SECONDS = st.floats(0.0, 1e6)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    histogram = LatencyHistogram()
    for value_ns in draw(st.lists(st.integers(0, 10**10), max_size=5)):
        histogram.record(value_ns)
    return Run(
        case=draw(TEXT),
        round=draw(st.integers(0, 9)),
        system=draw(TEXT),
        driver=draw(TEXT),
        settings=draw(FACTS),
        server_settings=draw(FACTS),
        client_settings=draw(FACTS),
        records=draw(st.integers(0, 10**12)),
        errors=draw(st.integers(0, 10)),
        elapsed_s=draw(SECONDS),
        records_per_sec=draw(SECONDS),
        latency_us=latencies_us(histogram),
        cpu_s={"clients": draw(SECONDS)},
        invalid_because=draw(st.none() | TEXT),
        histogram=histogram.encode(),
        hlog="#[a log]\n",
    )


def results(*of: Run) -> Results:
    return Results(kind="compare", command="frieda bench", environment={"cores": 2}, runs=of)


@settings(max_examples=examples(15))  # a histogram takes some ms to write and to read
@given(written=st.lists(runs(), max_size=3).map(lambda each: results(*each)))
def test_what_is_written_is_read_again(
    written: Results, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("results")
    path = write_results(folder, written)
    assert path == folder / RESULT_FILE
    assert read_results(path) == read_results(folder) == written
    document = json.loads(path.read_text())
    assert [run["valid"] for run in document["runs"]] == [run.valid for run in written.runs]
    names = {file.name for file in folder.iterdir()} - {RESULT_FILE}
    pairs = {(run.case, run.round) for run in written.runs}
    assert len(names) == 2 * len(pairs)


def a_run(case: str = "kafka, 1 producer", number: int = 0, **more: Any) -> Run:
    histogram = LatencyHistogram()
    histogram.record(1_000_000, 100)
    values: dict[str, Any] = {
        "case": case,
        "round": number,
        "system": "kafka",
        "driver": "confluent-kafka",
        "settings": {},
        "records": 100,
        "elapsed_s": 1.0,
        "records_per_sec": 100.0,
        "latency_us": latencies_us(histogram),
        "histogram": histogram.encode(),
        "hlog": "#[a log]\n",
    }
    return Run(**values | more)


def test_each_run_has_its_histograms_beside_it_also_where_names_would_be_the_same(
    tmp_path: Path,
) -> None:
    write_results(tmp_path, results(a_run("a b"), a_run("a b", 1), a_run("a/b"), a_run("../..")))
    assert {file.name for file in tmp_path.iterdir()} == {
        RESULT_FILE,
        *("a-b.0.hlog", "a-b.0.hgrm", "a-b.1.hlog", "a-b.1.hgrm"),
        *("a-b-2.0.hlog", "a-b-2.0.hgrm", "case.0.hlog", "case.0.hgrm"),
    }
    assert "TotalCount     =          100" in (tmp_path / "a-b.0.hgrm").read_text()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_results(tmp_path, results(a_run()))
    write_results(tmp_path, results(a_run(), a_run(number=1)))
    assert len(read_results(tmp_path).runs) == 2
    assert not list(tmp_path.glob(".*"))


def test_cases_are_in_the_order_in_which_they_first_ran() -> None:
    told = results(a_run("b"), a_run("a"), a_run("b", 1)).cases()
    assert [(case, [run.round for run in of]) for case, of in told.items()] == [
        ("b", [0, 1]),
        ("a", [0]),
    ]
    both = all_runs([results(a_run("a")), results(a_run("b"))])
    assert [run.case for run in both] == ["a", "b"]


def test_an_invalid_run_says_why() -> None:
    assert a_run().valid
    assert not a_run(invalid_because="it was late").valid


def document(**changes: Any) -> dict[str, Any]:
    run = {"case": "c", "round": 0, "system": "s", "driver": "d", "settings": {}, "records": 1}
    run |= {"elapsed_s": 1.0, "records_per_sec": 1.0, "latency_us": {}}
    run["histogram"] = LatencyHistogram().encode()
    whole: dict[str, Any] = {"format": "frieda-bench/1", "kind": "k", "command": "c"}
    return whole | {"environment": {}, "runs": [run | changes]}


def test_a_file_with_only_what_must_be_there_is_read(tmp_path: Path) -> None:
    path = tmp_path / RESULT_FILE
    path.write_text(json.dumps(document()))
    assert read_results(path).runs[0].records == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a file of results"),
        ("[" * 100_000, "is not a file of results"),
        ("[]", "is not a file of results of this version"),
        ('{"format": "frieda-bench/9"}', "is not a file of results of this version"),
        ('{"format": "frieda-bench/1"}', "is damaged"),
        (json.dumps(document(records="many")), "is damaged: a run's records is 'many'"),
        (json.dumps(document(round=True)), "is damaged: a run's round is True"),
        (json.dumps(document(histogram="HIST")), "is damaged: not an encoded histogram"),
        (json.dumps(document(unknown=1)), "is damaged: .*unknown"),
        (json.dumps(document() | {"runs": [1]}), "is damaged"),
        (json.dumps(document() | {"runs": 1}), "is damaged"),
    ],
)
def test_anything_else_is_refused_with_its_name(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"odd.json {words}"):
        read_results(path)


def test_a_file_that_is_missing_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*result.json: No such file"):
        read_results(tmp_path)
    write_results(tmp_path, results(a_run()))
    monkeypatch.setattr("frieda.bench.results.MAX_FILE_BYTES", 10)
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        read_results(tmp_path)
