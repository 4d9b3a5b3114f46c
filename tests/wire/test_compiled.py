"""The record loops are C where a compiler was there, the same files as plain Python where not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


def build(tmp_path: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Build one extension in a copy; the answer of setup.py and the names of what was compiled."""
    wire = tmp_path / "frieda" / "wire"
    wire.mkdir(parents=True)
    (wire.parent / "__init__.py").touch()
    for name in ("__init__.py", "murmur2.py", "murmur2.pxd"):
        shutil.copy(ROOT / "frieda" / "wire" / name, wire / name)
    text = (ROOT / "setup.py").read_text()
    one, found = re.subn(r"(?s)(COMPILED_MODULES = )\[.*?\]", r'\1["frieda.wire.murmur2"]', text)
    assert found == 1
    (tmp_path / "setup.py").write_text(one)
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return result, [path.name for path in wire.glob("*.so")]


def test_which_one_runs_is_said(codec: SimpleNamespace) -> None:
    assert codec.records.COMPILED is (codec.kind == "compiled")
    assert codec.record_writer.COMPILED is (codec.kind == "compiled")


def test_what_is_compiled_is_not_older_than_its_source(codec: SimpleNamespace) -> None:
    if codec.kind == "plain":
        assert codec.records.__file__.endswith("records.py")
        return
    for module in (codec.records, codec.record_writer, codec.murmur2):
        binary = Path(module.__file__)
        for suffix in (".py", ".pxd"):
            source = binary.with_name(binary.name.split(".")[0] + suffix)
            assert source.stat().st_mtime <= binary.stat().st_mtime, (
                f"{source} is newer than {binary}; run: python setup.py build_ext --inplace"
            )


def test_without_a_compiler_the_build_succeeds_and_says_so(tmp_path: Path) -> None:
    result, compiled = build(tmp_path, CC="/nonexistent/cc")
    assert result.returncode == 0, result.stderr
    assert compiled == []
    assert "its plain Python runs instead" in result.stderr + result.stdout


def test_without_a_compiler_a_publisher_gets_an_error(tmp_path: Path) -> None:
    result, compiled = build(tmp_path, CC="/nonexistent/cc", FRIEDA_REQUIRE_COMPILED="1")
    assert result.returncode != 0
    assert compiled == []


def test_with_a_compiler_the_extension_lies_beside_its_source(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on this machine")
    result, compiled = build(tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(compiled) == 1
    assert compiled[0].startswith("murmur2.")
