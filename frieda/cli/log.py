"""`frieda log`: read a data folder offline, check it and show what is in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from frieda.cli.exit_codes import ExitCode
from frieda.cli.output import OutputFormat, as_json, as_text, format_option
from frieda.errors import FriedaError
from frieda.storage.filesystem import RealFileSystem
from frieda.storage.scan import Damage, Found
from frieda.storage.verify import (
    SegmentReport,
    broker_that_holds,
    find_log_files,
    read_batches,
    verify_folder,
)
from frieda.wire.batch import decode_batch


@click.group("log")
def log_group() -> None:
    """Read a log offline: a data folder, a partition's folder or one .log file."""


@log_group.command()
@click.argument("path", metavar="DIR")
@format_option
def verify(path: str, output_format: OutputFormat) -> None:
    """Check every batch, record and index of the log in DIR.

    Nothing is changed. Exit code 0: all is sound; 1: damage was found (it is listed); 6: DIR cannot be read.
    """
    filesystem = RealFileSystem()
    _say_when_in_use(path)
    reports = list(verify_folder(filesystem, path))
    rows = [_report_row(report, path) for report in reports]
    if output_format == "json":
        click.echo(as_json(rows))
    else:
        columns = ["segment", "offsets", "batches", "records", "bytes", "state"]
        click.echo(as_text(columns, rows))
        for report in reports:
            for problem in report.problems:
                click.echo(f"{report.path}: {problem}")
        broken = sum(not report.sound for report in reports)
        verdict = f"{broken} of them damaged" if broken else "all sound"
        click.echo(
            f"{len(reports)} segments, {sum(r.batches for r in reports)} batches, "
            f"{sum(r.records for r in reports)} records, {sum(r.size_bytes for r in reports)} bytes: {verdict}"
        )
    if any(not report.sound for report in reports):
        sys.exit(ExitCode.FAILURE)


@log_group.command()
@click.argument("path", metavar="DIR")
@click.option("--records", is_flag=True, help="Show the records of each batch too.")
@format_option
def dump(path: str, records: bool, output_format: OutputFormat) -> None:
    """Print a line for each batch of the log in DIR, as Kafka's DumpLogSegments does.

    With --format json each line is one JSON object.
    """
    filesystem = RealFileSystem()
    _say_when_in_use(path)
    for log_file in find_log_files(filesystem, path):
        if output_format == "text":
            click.echo(f"Dumping {log_file.path}")
            click.echo(f"Log starting offset: {log_file.base_offset}")
        for event in read_batches(filesystem, log_file):
            row = _event_row(event)
            if output_format == "json":
                click.echo(_json_line(row | {"file": log_file.path}))
            else:
                click.echo(" ".join(f"{key}: {_kafka_text(value)}" for key, value in row.items()))
            if records and isinstance(event, Found):
                for record in _record_rows(event):
                    _show_record(record, output_format)


def _say_when_in_use(path: str) -> None:
    process = broker_that_holds(RealFileSystem(), path)
    if process is not None:
        click.echo(
            f"note: a running broker (process {process}) holds this folder; "
            "what it is writing at this moment is left out",
            err=True,
        )


def _report_row(report: SegmentReport, path: str) -> dict[str, object]:
    base = os.path.abspath(path)
    return {
        "segment": os.path.relpath(report.path, base) if report.path != base else report.path,
        "offsets": f"{report.base_offset}..{report.end_offset - 1}" if report.batches else "empty",
        "base_offset": report.base_offset,
        "end_offset": report.end_offset,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.size_bytes,
        "preallocated_bytes": report.zero_bytes,
        "damaged_ranges": [
            {
                "position": damage.position,
                "bytes": damage.size_bytes,
                "first_offset": damage.first_offset,
                "next_readable_offset": damage.next_offset,
                "reason": damage.reason,
            }
            for damage in report.damages
        ],
        "problems": report.problems,
        "state": "sound" if report.sound else "DAMAGED",
    }


def _event_row(event: Found | Damage) -> dict[str, object]:
    if isinstance(event, Damage):
        return {
            "damagedPosition": event.position,
            "size": event.size_bytes,
            "firstOffset": event.first_offset,
            "nextOffset": event.next_offset,
            "reason": event.reason,
            "isvalid": False,
        }
    header = event.header
    numbered = header.base_sequence >= 0
    last_sequence = (header.base_sequence + header.last_offset_delta) % 2**31 if numbered else -1
    return {
        "baseOffset": header.base_offset,
        "lastOffset": header.last_offset,
        "count": header.record_count,
        "baseSequence": header.base_sequence,
        "lastSequence": last_sequence,
        "producerId": header.producer_id,
        "producerEpoch": header.producer_epoch,
        "partitionLeaderEpoch": header.leader_epoch,
        "isTransactional": bool(header.attributes & 0x10),
        "isControl": header.is_control,
        "deleteHorizonMs": "OptionalLong.empty",
        "position": event.position,
        "LogAppendTime" if header.has_append_time else "CreateTime": header.max_timestamp_ms,
        "size": header.size_bytes,
        "magic": header.magic,
        "compresscodec": header.compression,
        "crc": header.crc,
        "isvalid": True,
    }


def _record_rows(event: Found) -> Iterator[dict[str, object]]:
    header = event.header
    try:
        records = decode_batch(event.batch, "", 0)
    except FriedaError as error:
        yield {"unreadable": str(error)}
        return
    for at, record in enumerate(records):
        key, value = record.key, record.value
        yield {
            "offset": record.offset,
            "CreateTime": record.timestamp_ms,
            "keySize": -1 if key is None else len(key),
            "valueSize": -1 if value is None else len(value),
            "sequence": (header.base_sequence + at) % 2**31 if header.base_sequence >= 0 else -1,
            "headerKeys": [name for name, _ in record.headers],
            "key": _printable(key),
            "payload": _printable(value),
        }


def _show_record(record: dict[str, object], output_format: OutputFormat) -> None:
    if output_format == "json":
        click.echo(_json_line(record))
    else:
        shown = {name: value for name, value in record.items() if value is not None}
        click.echo("| " + " ".join(f"{key}: {_kafka_text(value)}" for key, value in shown.items()))


def _kafka_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",".join(map(str, value)) + "]"
    return str(value)


def _printable(data: bytes | None) -> str | None:
    """Text as it is; bytes that are none, and control codes, escaped: a record must not rule the terminal."""
    if data is None:
        return None
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json_line(row: dict[str, Any]) -> str:
    return " ".join(as_json(row).split("\n ")).replace("\n", "")
