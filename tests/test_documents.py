"""README and docs/ are true: examples run, commands and settings exist, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from frieda.cli.main import cli
from frieda.config import BrokerConfig, ClientConfig, ConsumerConfig, ProducerConfig, TopicConfig
from frieda.errors import ErrorCode
from frieda.testing.brokers import BrokerProcess

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEFAULT_ADDRESS = "tcp://127.0.0.1:9500"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[str]:
    """The lines that a console block has behind its prompt."""
    lines = (line for block in blocks(document, "console") for line in block.splitlines())
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder: Path = tmp_path_factory.mktemp("documents") / "data"
    with BrokerProcess(folder, "--polling", "event") as process:
        yield process
        code, errors = process.stop()
        assert (code, errors) == (0, "")


def test_the_python_examples_of_the_readme_run_as_they_stand(broker: BrokerProcess) -> None:
    examples = blocks(ROOT / "README.md", "python")
    printed = []
    for example in examples:
        assert DEFAULT_ADDRESS in example
        done = subprocess.run(
            [sys.executable, "-c", example.replace(DEFAULT_ADDRESS, broker.url)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout)
    asynchronous, synchronous = printed
    assert re.match(r"stored in greetings-\d at offset 0\n", asynchronous)
    assert "b'alice' b'hello'" in asynchronous
    assert "hello from a script" in synchronous


def test_the_command_line_tour_of_the_readme_runs(broker: BrokerProcess, tmp_path: Path) -> None:
    tour = commands(ROOT / "README.md")
    assert len(tour) > 5
    environment = {
        **os.environ,
        "FRIEDA_BOOTSTRAP": broker.url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    output = {}
    for command in tour:
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        output[command] = done.stdout
    shown = next(text for command, text in output.items() if "%p %o %v" in command)
    assert re.search(r"^\d \d+ tick$", shown, re.MULTILINE)
    assert re.search(r"^\d \d+ tock$", shown, re.MULTILINE)


def frieda_commands() -> list[str]:
    """Every `frieda ...` of every document: of console blocks, and in back quotes with an argument."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        quoted = [each.replace("\n", " ") for each in re.findall(r"`(frieda [^`]+)`", text)]
        for command in [*commands(document), *quoted]:
            frieda = command.rpartition("| ")[2]
            if frieda.startswith("frieda ") and "..." not in frieda:
                found[frieda] = None
    return list(found)


@pytest.mark.parametrize("command", frieda_commands())
def test_a_command_that_a_document_names_exists_with_its_options(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, *words = shlex.split(command)
    found: click.Command = cli
    context = click.Context(cli, info_name="frieda")
    while isinstance(found, click.Group) and words:
        name = words.pop(0)
        inner = found.get_command(context, name)
        assert inner is not None, f"{command}: there is no {name!r}"
        found = inner
        context = click.Context(found, info_name=name, parent=context)
    options = {name for each in found.params for name in (*each.opts, *each.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word in options, f"{command}: there is no option {word}"


def table_rows(document: Path, heading: str) -> list[str]:
    """The first cells of the table that has `heading` in its first line."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.split("|")[1].strip())
    return cells


def test_every_topic_setting_of_the_operations_guide_exists() -> None:
    names = re.findall(r"`([a-z.]+)`", " ".join(table_rows(ROOT / "docs/operations.md", "setting")))
    assert len(names) >= 8
    assert set(names) <= set(TopicConfig().as_text())


def test_the_settings_and_defaults_in_the_table_of_bounds_are_those_of_the_code() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "(" in line]
    units = {"KiB": 2**10, "MiB": 2**20, "s": 1, "h": 3600}
    checked = set()
    for row in rows:
        for name, number, unit in re.findall(r"`([a-z_]+)` \((\d[\d,]*) ?(KiB|MiB|s|h)?\)", row):
            configs = (BrokerConfig(), ProducerConfig(), ConsumerConfig(), ClientConfig())
            value = next(getattr(config, name) for config in configs if hasattr(config, name))
            stated = int(number.replace(",", "")) * units.get(unit, 1)
            assert value == stated * (1000 if name.endswith("_ms") else 1), name
            checked.add(name)
    assert len(checked) >= 12


def test_every_error_code_that_a_document_names_exists() -> None:
    known = {code.name for code in ErrorCode}
    rows = table_rows(ROOT / "docs/operations.md", "what it says")
    named = {word for row in rows for word in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", row)}
    assert "LOG_FAILED" in named
    assert named - {"N"} <= known


def test_health_names_the_facts_that_the_operations_guide_explains(broker: BrokerProcess) -> None:
    rows = " ".join(table_rows(ROOT / "docs/operations.md", "fact"))
    explained = set(re.findall(r"`([a-z_]+(?:_[A-Z]+)?)`", rows))
    done = subprocess.run(
        [sys.executable, "-m", "frieda", "health", "-b", broker.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = {line.split()[0] for line in done.stdout.splitlines() if line}

    def explains(name: str, fact: str) -> bool:
        stem = re.sub("[A-Z]+$", "", name)
        return fact == name or (stem != name and fact.startswith(stem))

    for fact in told - {"status", "software"}:
        assert any(explains(name, fact) for name in explained), f"{fact} is not explained"
    for name in explained - {"polling_fallbacks_REASON"}:
        assert any(explains(name, fact) for fact in told), f"{name} is not told"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
