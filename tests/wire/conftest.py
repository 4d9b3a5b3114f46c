"""The codec twice: compiled, and the same files as plain Python."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import frieda.wire

WIRE = Path(frieda.wire.__file__).parent
COMPILED_NAMES = ("records", "record_writer", "murmur2")


def load_plain(name: str) -> ModuleType:
    """`frieda.wire.<name>` from its .py file, whether or not a compiled one lies beside it."""
    spec = importlib.util.spec_from_file_location(f"frieda.wire.{name}", WIRE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load_plain_codec() -> SimpleNamespace:
    """The plain files and a batch module that uses them; sys.modules is as before afterwards."""
    names = (*COMPILED_NAMES, "batch")
    for name in names:
        importlib.import_module(f"frieda.wire.{name}")
    before = {name: sys.modules[f"frieda.wire.{name}"] for name in names}
    try:
        return SimpleNamespace(kind="plain", **{name: load_plain(name) for name in names})
    finally:
        for name, module in before.items():
            sys.modules[f"frieda.wire.{name}"] = module


@pytest.fixture(scope="session", params=["compiled", "plain"])
def codec(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    """Namespace of kind ("compiled" or "plain") and the modules batch, records, record_writer, murmur2."""
    if request.param == "plain":
        yield load_plain_codec()
        return
    modules = {
        name: importlib.import_module(f"frieda.wire.{name}") for name in (*COMPILED_NAMES, "batch")
    }
    missing = [name for name in COMPILED_NAMES if modules[name].__file__.endswith(".py")]
    if missing:
        message = (
            f"not compiled: frieda.wire.{', frieda.wire.'.join(missing)}; "
            "run: python setup.py build_ext --inplace"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    yield SimpleNamespace(kind="compiled", **modules)
