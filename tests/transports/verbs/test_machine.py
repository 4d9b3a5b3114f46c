"""The virtual machine of tests/rdma_vm, as far as it goes without one: what it needs, and what it says without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def machine(monkeypatch):
    place = ROOT / "tests" / "rdma_vm" / "machine.py"
    spec = importlib.util.spec_from_file_location("rdma_vm_machine", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr("sys.argv", ["machine.py", "--", "true"])
    return module


def test_continuous_integration_installs_every_package_that_it_is_made_of(machine):
    installed = (ROOT / ".ci" / "run").read_text()
    for package in set(machine.TOOLS.values()) - {"apt"}:
        assert f" {package}" in installed


def test_without_its_packages_it_says_that_it_skips_and_how_to_get_them(
    machine, monkeypatch, capsys
):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(machine, "missing_packages", lambda: ["cpio", "qemu-system-x86"])
    assert machine.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("SKIPPED: no soft-RoCE machine here: not installed: cpio, qemu")
    assert "apt-get install --no-install-recommends cpio qemu-system-x86" in said


def test_on_continuous_integration_to_skip_is_to_fail(machine, monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(machine, "missing_packages", lambda: ["qemu-system-x86"])
    assert machine.main() == machine.MACHINE_FAILED
    assert "SKIPPED" in capsys.readouterr().out


def test_on_another_architecture_it_skips(machine, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.main() == 0
    assert "made for x86-64 and this is aarch64" in capsys.readouterr().out


def test_a_machine_that_ends_without_an_answer_is_an_error_of_its_own(
    machine, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(machine, "why_impossible", lambda: None)

    def fail(*_args, **_keywords):
        raise machine.MachineError("the virtual machine was killed after its deadline of 1 s")

    monkeypatch.setattr(machine, "run", fail)
    monkeypatch.setattr("sys.argv", ["machine.py", "--results", str(tmp_path / "r"), "--", "true"])
    assert machine.main() == machine.MACHINE_FAILED
    assert "killed after its deadline" in capsys.readouterr().err
