"""What is built and installed: one package, every module in it once, nothing importable beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
CODE_FOLDERS = ("transports", "clients", "bench", "ysb")
NOT_SOURCE = shutil.ignore_patterns(
    ".git",
    ".venv*",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "out",
    "*.egg-info",
    "*.so",
    "*.c",
)

pytestmark = pytest.mark.timeout(300)


class Built(NamedTuple):
    source: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A source distribution of a copy of this checkout, and a wheel made from it."""
    source = tmp_path_factory.mktemp("source") / "frieda"
    shutil.copytree(ROOT, source, symlinks=True, ignore=NOT_SOURCE)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        # Nothing here runs what is compiled, so the compiler need not take pains with it.
        env=os.environ | {"CFLAGS": "-O0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(source, wheel, sdist)


def source_files(source: Path, suffix: str) -> list[str]:
    """The package's files as they are installed: `frieda/...`, the links followed."""
    return sorted(
        str((Path(folder) / file).relative_to(source))
        for folder, _, files in os.walk(source / "frieda", followlinks=True)
        for file in files
        if file.endswith(suffix)
    )


def test_the_wheel_carries_every_module_once(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    assert sorted(name for name in names if name.endswith(".py")) == source_files(
        built.source, ".py"
    )
    assert len(names) == len(set(names))
    assert "frieda/py.typed" in names


def test_the_wheel_makes_nothing_importable_but_frieda(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"frieda"}


def test_the_source_distribution_carries_every_module_once(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    assert len(names) == len(set(names))
    modules = sorted(n for n in names if n.endswith(".py") and n != "setup.py")
    assert modules == source_files(built.source, ".py")
    assert sorted(n for n in names if n.endswith(".pxd")) == source_files(built.source, ".pxd")
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= set(names)
    assert not [name for name in names if name.partition("/")[0] in CODE_FOLDERS]


def test_the_links_inside_the_package_lead_to_the_folders_beside_it() -> None:
    for name in CODE_FOLDERS:
        assert os.readlink(ROOT / "frieda" / name) == f"../{name}"


def test_the_code_folders_are_never_modules_of_their_own() -> None:
    program = (
        "import sys, pkgutil, frieda\n"
        "from importlib import import_module\n"
        "for module in pkgutil.walk_packages(frieda.__path__, 'frieda.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        import_module(module.name)\n"
        f"print([name for name in {CODE_FOLDERS!r} if name in sys.modules])\n"
        "print(len([name for name in sys.modules if name.startswith('frieda.')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "[]"
    assert int(lines[1]) > 20
