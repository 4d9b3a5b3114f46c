"""Child processes: started, watched, ended, and never left behind, whatever ends their owner."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieda.bench.systems.processes import (
    ChildProcess,
    accepts_connections,
    find_program,
    free_ports,
    peers_folder,
    require_program,
    resident_bytes,
    socket_folder,
    version_line,
)
from frieda.errors import FriedaError

GUARD_S = 120.0
IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('deaf', flush=True)
while True: time.sleep(60)
"""
WITH_GRANDCHILD = """
import subprocess, time
print(subprocess.Popen(['sleep', '1000']).pid, flush=True)
time.sleep(1000)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def says(process: ChildProcess, text: str) -> Callable[[], bool]:
    return lambda: text in process.log.read_text()


@contextlib.contextmanager
def watched(*pids: int) -> Iterator[Callable[[], None]]:
    """Gives a call that returns when all of these have ended."""
    with contextlib.ExitStack() as stack:
        handles = []
        for pid in pids:
            handle = os.pidfd_open(pid)
            stack.callback(os.close, handle)
            handles.append(handle)

        def wait() -> None:
            for handle in handles:
                assert select.select([handle], [], [], GUARD_S)[0], "it has not ended"

        yield wait


def test_it_is_stopped_in_order_at_the_end(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('in order', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(60)"
    )
    with ChildProcess("child", python(code), tmp_path) as child:
        child.wait_until(says(child, "up"), GUARD_S)
        assert not child.ended
        assert child.pids == (child.pid,)
        child.require_alive()
    assert child.ended
    assert child.pids == ()
    assert child.log.read_text() == "up\nin order\n"
    with pytest.raises(FriedaError, match=r"(?s)child does not run any more .*in order"):
        child.require_alive()


def test_it_has_a_process_group_of_its_own(tmp_path: Path) -> None:
    with ChildProcess("child", ["sleep", "1000"], tmp_path) as child:
        assert os.getpgid(child.pid) != os.getpgid(0)


def test_one_that_does_not_stop_is_killed_after_the_stop_timeout(tmp_path: Path) -> None:
    child = ChildProcess("child", python(IGNORES_SIGTERM), tmp_path, stop_timeout_s=0.2)
    with child:
        child.wait_until(says(child, "deaf"), GUARD_S)
    assert child.ended


def test_an_exception_kills_it_without_waiting(tmp_path: Path) -> None:
    child = ChildProcess("child", python(IGNORES_SIGTERM), tmp_path, stop_timeout_s=10 * GUARD_S)

    def interrupted() -> bool:
        if "deaf" in child.log.read_text():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt), child:
        child.wait_until(interrupted, GUARD_S)
    assert child.ended


def test_those_that_it_has_started_end_with_it(tmp_path: Path) -> None:
    with ChildProcess("child", python(WITH_GRANDCHILD), tmp_path) as child:
        child.wait_until(lambda: child.log.read_text().endswith("\n"), GUARD_S)
        grandchild = int(child.log.read_text())
        assert set(child.pids) == {child.pid, grandchild}
        with watched(grandchild) as gone:
            child.kill()
            gone()


def test_processor_time_and_memory_are_those_of_all_its_processes(tmp_path: Path) -> None:
    busy = "while True: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with ChildProcess("child", python(code), tmp_path) as child:
        child.wait_until(lambda: child.cpu_seconds() > 0.5, GUARD_S)
        assert len(child.pids) == 2
        one, other = child.pids
        assert child.memory_bytes() > resident_bytes([one]) > 1_000_000
        assert resident_bytes([other]) > 1_000_000
    assert child.cpu_seconds() == 0.0
    assert child.memory_bytes() == 0


OWNER = """
    import sys
    from pathlib import Path
    from frieda.bench.systems.processes import ChildProcess
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    with ChildProcess("child", [sys.executable, "-c", code], Path(sys.argv[1])) as child:
        child.wait_until(lambda: child.log.read_text().endswith("\\n"), 60)
        print(child.pid, child.log.read_text().strip(), flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    home = Path(__file__).parents[3]
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(home)},
    )
    with owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 2
        with watched(*pids) as gone:
            owner.send_signal(number)
            gone()
        owner.wait(GUARD_S)
    assert owner.returncode != 0


def test_one_that_ends_before_it_is_ready_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('x' * 9000); print('no such setting', file=sys.stderr); sys.exit(3)"
    child = ChildProcess("child", python(code), tmp_path)
    with (
        pytest.raises(
            FriedaError, match=r"(?s)child does not run any more \(exit code 3\).*no such setting"
        ) as caught,
        child,
    ):
        child.wait_until(lambda: False, GUARD_S)
    assert len(str(caught.value)) < 5000


def test_one_that_is_not_ready_in_time_is_told_and_killed(tmp_path: Path) -> None:
    child = ChildProcess("child", ["sleep", "1000"], tmp_path)
    with pytest.raises(FriedaError, match=r"not ready within 0.1 s; it wrote nothing"), child:
        child.wait_until(lambda: False, 0.1)
    assert child.ended


def test_an_os_error_of_the_check_is_not_yet(tmp_path: Path) -> None:
    answers = iter([ConnectionRefusedError(), FileNotFoundError(), None])

    def ready() -> bool:
        answer = next(answers)
        if answer is not None:
            raise answer
        return True

    with ChildProcess("child", ["sleep", "1000"], tmp_path) as child:
        child.wait_until(ready, GUARD_S)


def test_a_program_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    child = ChildProcess("child", [tmp_path / "nothing"], tmp_path)
    with pytest.raises(FriedaError, match=r"child cannot be started: .*No such file"), child:
        pytest.fail("it was entered")
    assert child.ended
    with pytest.raises(FriedaError, match="child was not started"):
        _ = ChildProcess("child", ["sleep"], tmp_path).pid


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    child = ChildProcess("child", ["sleep", "1"], tmp_path / "nothing")
    with pytest.raises(FriedaError, match=r"child cannot be started: .*nothing"), child:
        pytest.fail("it was entered")


def test_it_is_started_once(tmp_path: Path) -> None:
    child = ChildProcess("child", ["sleep", "1000"], tmp_path)
    with child:
        pass
    with pytest.raises(FriedaError, match="child was started already"), child:
        pytest.fail("it was entered")


def test_only_the_given_environment_is_passed_on(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo only $ONLY and $HOME.; sleep 1000"]
    with ChildProcess("child", command, tmp_path, environment={"ONLY": "this"}) as child:
        child.wait_until(says(child, "only this and .\n"), GUARD_S)


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports[0]))
        assert not accepts_connections(ports[0])
        listener.listen()
        assert accepts_connections(ports[0])


def test_programs_are_found_on_the_path_beside_python_and_among_the_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRIEDA_PEERS", str(tmp_path))
    assert peers_folder() == tmp_path
    found = find_program("sh")
    assert found is not None
    assert found.is_absolute()
    assert found.name == "sh"
    assert find_program("a-peer") is None
    with pytest.raises(FriedaError, match="get it there"):
        require_program("a-peer", "get it there")
    peer = tmp_path / "bin" / "a-peer"
    peer.parent.mkdir()
    peer.write_text("#!/bin/sh\necho a-peer 1.2.3\n")
    assert find_program("a-peer") is None, "it cannot be run"
    peer.chmod(0o755)
    assert find_program("a-peer") == peer
    assert require_program("a-peer", None) == peer
    monkeypatch.setattr(sys, "executable", str(peer.parent / "python"))
    monkeypatch.setenv("FRIEDA_PEERS", str(tmp_path / "elsewhere"))
    assert find_program("a-peer") == peer


def test_the_peers_are_in_the_data_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRIEDA_PEERS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert peers_folder() == tmp_path / "frieda" / "peers"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert peers_folder() == tmp_path / "home" / ".local" / "share" / "frieda" / "peers"


@pytest.mark.parametrize("command", [["false"], ["true"], ["/nothing"]])
def test_a_program_that_tells_no_version_is_named(command: list[str]) -> None:
    with pytest.raises(FriedaError, match=f"{command[0]} does not tell its version"):
        version_line(*command)


def test_a_version_is_the_first_line() -> None:
    assert version_line("printf", "one\\ntwo\\n") == "one"


def test_a_long_path_has_its_socket_in_a_short_one_that_is_removed(tmp_path: Path) -> None:
    with socket_folder(tmp_path, "s") as folder:
        assert folder == tmp_path
    long = tmp_path / ("long" * 40)
    long.mkdir()
    with socket_folder(long, "s.sock") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s.sock"))
        assert folder != long
    assert not folder.exists()
    assert long.exists()


def test_waiting_looks_again_at_once_when_the_child_ends(tmp_path: Path) -> None:
    began_s = time.monotonic()
    child = ChildProcess("child", ["false"], tmp_path)
    with pytest.raises(FriedaError, match="exit code 1"), child:
        child.wait_until(lambda: False, 10 * GUARD_S)
    assert time.monotonic() - began_s < GUARD_S
