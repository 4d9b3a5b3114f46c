"""The `frieda` command: what it loads, and what becomes of errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import click
import pytest

from frieda.cli import main as main_module
from frieda.cli.exit_codes import ExitCode, exit_code_of
from frieda.cli.main import SUBCOMMANDS, Subcommand, run
from frieda.errors import (
    AddressInUseError,
    BrokenError,
    BrokerError,
    ConfigError,
    ConnectError,
    CorruptLogError,
    DeliveryTimeoutError,
    ErrorCode,
    FriedaError,
    MissingDependencyError,
    RemoteProtocolError,
    StorageError,
)

Install = Callable[[Callable[[], object]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes `frieda probe` run a function."""

    def install_as_probe(body: Callable[[], object]) -> None:
        module = ModuleType("frieda_probe")
        module.__dict__["probe"] = click.command("probe")(body)
        monkeypatch.setitem(sys.modules, "frieda_probe", module)
        row = Subcommand("frieda_probe:probe", "A probe.")
        monkeypatch.setitem(main_module.SUBCOMMANDS, "probe", row)

    return install_as_probe


def raiser(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def test_a_command_that_ends_well_exits_with_0(install: Install) -> None:
    install(lambda: None)
    assert run(["probe"]) == 0


def test_a_command_may_choose_its_exit_code(install: Install) -> None:
    install(lambda: click.get_current_context().exit(1))
    assert run(["probe"]) == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ConfigError("data = 5: must be a text"), 2, "frieda: data = 5: must be a text\n"),
        (ConnectError("no broker at tcp://a:1"), 3, "frieda: no broker at tcp://a:1\n"),
        (FileNotFoundError(2, "No such file", "x.txt"), 1, "frieda: x.txt: No such file\n"),
        (ExceptionGroup("tasks", [ConnectError("gone")]), 3, "frieda: gone\n"),
    ],
)
def test_a_failure_is_one_sentence_on_standard_error(
    install: Install,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    install(raiser(error))
    assert run(["probe"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", sentence)


def test_with_frieda_debug_the_traceback_is_shown_too(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRIEDA_DEBUG", "1")
    install(raiser(ConfigError("no")))
    assert run(["probe"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("frieda: no\n")


def test_a_bug_keeps_its_traceback(install: Install) -> None:
    install(raiser(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(["probe"])
    install(raiser(ExceptionGroup("tasks", [ZeroDivisionError()])))
    with pytest.raises(ExceptionGroup):
        run(["probe"])


def test_ctrl_c_exits_with_130(install: Install) -> None:
    install(raiser(KeyboardInterrupt()))
    assert run(["probe"]) == ExitCode.INTERRUPTED


def test_a_wrong_command_line_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonsense"]) == ExitCode.USAGE
    assert "No such command 'nonsense'" in capsys.readouterr().err


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    program = (
        "import sys, types, click, frieda.cli.main as m\n"
        "probe = types.ModuleType('frieda_probe')\n"
        "@click.command()\n"
        "def command():\n"
        "    while True: click.echo('x' * 1000)\n"
        "probe.command = command\n"
        "sys.modules['frieda_probe'] = probe\n"
        "m.SUBCOMMANDS['probe'] = m.Subcommand('frieda_probe:command', '')\n"
        "m.main(['probe'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == ExitCode.PIPE_CLOSED


def test_help_and_version_import_no_subcommand() -> None:
    program = (
        "import sys, frieda.cli.main as m\n"
        "assert m.run(['--help']) == 0 and m.run(['--version']) == 0\n"
        "loaded = {row.target.partition(':')[0] for row in m.SUBCOMMANDS.values()}\n"
        "print(sorted(loaded & set(sys.modules)), 'asyncio' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[] False"
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: frieda {name}" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"_FRIEDA_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError(ErrorCode.DISK_FULL, "x"), ExitCode.STORAGE),
        (CorruptLogError("x", 5), ExitCode.STORAGE),
        (BrokerError(ErrorCode.DISK_FULL), ExitCode.STORAGE),
        (BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), ExitCode.NOT_FOUND),
        (BrokerError(ErrorCode.REQUEST_TIMED_OUT), ExitCode.TIMEOUT),
        (BrokerError(ErrorCode.NETWORK_EXCEPTION), ExitCode.UNREACHABLE),
        (BrokerError(ErrorCode.TOPIC_ALREADY_EXISTS), ExitCode.REFUSED),
        (RemoteProtocolError("x"), ExitCode.REFUSED),
        (MissingDependencyError("x"), ExitCode.USAGE),
        (AddressInUseError("x"), ExitCode.USAGE),
        (BrokenError("x"), ExitCode.UNREACHABLE),
        (DeliveryTimeoutError("x"), ExitCode.TIMEOUT),
        (TimeoutError(), ExitCode.TIMEOUT),
        (FriedaError("x"), ExitCode.FAILURE),
    ],
)
def test_the_exit_code_tells_what_kind_of_failure_it_was(
    error: BaseException, code: ExitCode
) -> None:
    assert exit_code_of(error) == code
