"""`frieda log verify` and `frieda log dump` on real folders."""

from __future__ import annotations

import json
import uuid

import pytest
from click.testing import CliRunner

from frieda.cli.log import log_group
from frieda.clock import SystemClock
from frieda.config import BrokerConfig, TopicConfig
from frieda.errors import StorageError
from frieda.storage.filesystem import RealFileSystem
from frieda.storage.folder import DataFolder
from frieda.testing.batches import make_batch
from frieda.wire.batch import check_batch
from frieda.wire.crc import crc32c


@pytest.fixture
def folder(tmp_path, append):
    """A closed data folder with one partition of a few segments."""
    data = DataFolder.open(RealFileSystem(), str(tmp_path / "data"), 0)
    config = TopicConfig(segment_bytes=2048, index_interval_bytes=1024)
    log = data.open_log("t", 0, uuid.UUID(int=1).bytes, config, SystemClock(), BrokerConfig())
    for number in range(30):
        append(log, [b"value %d " % number * 10, b"second"])
    log.close()
    data.close(clean=True)
    return tmp_path / "data"


def segments(folder):
    return sorted((folder / "t-0").glob("*.log"))


def run(*arguments):
    return CliRunner().invoke(log_group, [str(a) for a in arguments])


def test_a_sound_folder_passes_whole_by_partition_and_by_file(folder):
    for path in (folder, folder / "t-0", segments(folder)[1]):
        result = run("verify", path)
        assert result.exit_code == 0, result.output
        assert "all sound" in result.output
    assert "30 batches, 60 records" in run("verify", folder).output


def test_a_flipped_bit_is_found_and_placed(folder):
    path = segments(folder)[1]
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "its checksum is wrong" in result.output
    rows = json.loads(run("verify", folder, "--format", "json").output)
    damaged = [row for row in rows if row["damaged_ranges"]]
    assert [row["segment"] for row in damaged] == [f"t-0/{path.name}"]
    assert damaged[0]["damaged_ranges"][0]["position"] == 0
    first = damaged[0]["base_offset"]
    assert damaged[0]["damaged_ranges"][0]["next_readable_offset"] == first + 2


def test_a_batch_whose_count_lies_is_found(folder):
    path = segments(folder)[0]
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[8:12]) + 12
    data[23:27] = (2).to_bytes(4)
    data[57:61] = (3).to_bytes(4)
    data[17:21] = crc32c(bytes(data[21:size])).to_bytes(4)
    path.write_bytes(data[:size])
    (path.with_suffix(".index")).unlink()
    result = run("verify", path)
    assert result.exit_code == 1
    assert "the batch at byte 0" in result.output


def test_an_index_that_leads_astray_is_found(folder):
    path = segments(folder)[0].with_suffix(".index")
    data = bytearray(path.read_bytes())
    assert data
    data[-1] ^= 1
    path.write_bytes(data)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "offset index" in result.output


def test_a_missing_segment_is_found(folder):
    segments(folder)[1].unlink()
    result = run("verify", folder)
    assert result.exit_code == 1
    assert "the segment before ends at offset" in result.output


def test_a_torn_tail_is_damage_offline_and_no_damage_under_a_running_broker(folder):
    path = segments(folder)[-1]
    path.write_bytes(path.read_bytes()[:-5])
    assert run("verify", folder).exit_code == 1
    running = DataFolder.open(RealFileSystem(), str(folder), 0)
    result = run("verify", folder)
    assert result.exit_code == 0, result.output
    assert "a running broker" in result.output
    running.close(clean=False)


def test_dump_prints_kafkas_lines(folder):
    result = run("dump", folder, "--records")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[1] == "Log starting offset: 0"
    assert lines[2].startswith("baseOffset: 0 lastOffset: 1 count: 2 baseSequence: -1")
    assert "isvalid: true" in lines[2]
    assert lines[3].startswith("| offset: 0 CreateTime: ")
    assert "payload: value 0 value 0" in lines[3]
    assert sum(line.startswith("baseOffset") for line in lines) == 30
    assert sum(line.startswith("| offset") for line in lines) == 60


def test_dump_in_json_is_one_object_a_line(folder):
    lines = run("dump", segments(folder)[0], "--format", "json").output.splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0]["baseOffset"] == 0
    assert all(row["isvalid"] for row in rows)


def test_a_dump_never_sends_control_codes_to_the_terminal(tmp_path):
    batch = make_batch([b"\x1b[31mred\n\xff"])
    check_batch(batch)
    path = tmp_path / "00000000000000000000.log"
    path.write_bytes(batch)
    output = run("dump", path, "--records").output
    assert "\x1b" not in output
    assert r"\x1b[31mred\n\xff" in output


def test_what_holds_no_log_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    for path in (tmp_path, tmp_path / "x.txt", tmp_path / "missing"):
        result = run("verify", path)
        assert isinstance(result.exception, StorageError)
        assert str(path) in str(result.exception)
