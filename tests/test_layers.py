"""The layers of docs/architecture.md, read from the source: who may import whom, and who does no I/O."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "frieda"
MAX_LINES = 450

SHARED = ("frieda.model", "frieda.errors", "frieda.config", "frieda.clock", "frieda.host")
WIRE = ("frieda.wire", "frieda.model", "frieda.errors")
CLIENT_SIDE = (
    "frieda.clients",
    "frieda.protocol",
    "frieda.wire",
    "frieda.transports",
    "frieda.event_loop",
    *SHARED,
)

# What a module may import of ours, by the longest name here that it starts with. Imports point down.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "frieda": (),  # its names are imported when first used
    "frieda.__main__": ("frieda.cli",),
    "frieda.errors": (),
    "frieda.clock": (),
    "frieda.host": (),
    "frieda.model": ("frieda.errors",),
    "frieda.config": ("frieda.errors",),
    "frieda.event_loop": ("frieda.errors", "frieda.config"),
    "frieda.config_sources": ("frieda.config", "frieda.errors"),
    "frieda.wire": WIRE,
    "frieda.protocol": ("frieda.protocol", *WIRE),
    "frieda.storage": ("frieda.storage", "frieda.wire", *SHARED),
    "frieda.cluster": ("frieda.cluster", "frieda.storage", "frieda.wire", *SHARED),
    "frieda.replication": (
        "frieda.replication",
        "frieda.storage",
        "frieda.cluster",
        "frieda.protocol",
        "frieda.wire",
        *SHARED,
    ),
    "frieda.broker": (
        "frieda",  # its version
        "frieda.broker",
        "frieda.replication",
        "frieda.storage",
        "frieda.cluster",
        "frieda.protocol",
        "frieda.wire",
        "frieda.transports.base",
        *SHARED,
    ),
    "frieda.transports": ("frieda.transports", "frieda.errors", "frieda.config", "frieda.clock"),
    "frieda.clients": CLIENT_SIDE,
    "frieda.sync": CLIENT_SIDE,
    "frieda.bench": ("frieda", "frieda.bench", *CLIENT_SIDE),
    "frieda.bench.echo": ("frieda.bench", "frieda.errors"),  # the floor: nothing of ours beneath it
    "frieda.ysb": ("frieda.ysb", "frieda.bench", *CLIENT_SIDE),
    "frieda.testing": (
        "frieda.testing",
        "frieda.broker",
        "frieda.storage",
        "frieda.cluster",
        *CLIENT_SIDE,
    ),
    "frieda.testing.simulation": (
        "frieda.testing.simulation",
        "frieda.replication",
        "frieda.cluster.election",
        "frieda.cluster.state",
        "frieda.storage.leader_epochs",
        "frieda.storage.producer_state",
        "frieda.storage.replicated",
        *WIRE,
    ),
    "frieda.testing.simulation.chaos": ("frieda.testing.simulation",),  # its processes
    "frieda.testing.driver_clauses": ("frieda.bench", "frieda.testing", "frieda.wire", *SHARED),
    "frieda.testing.driver_endings": ("frieda.bench", "frieda.testing", *SHARED),
    "frieda.testing.driver_probes": ("frieda.bench", "frieda.testing", *SHARED),
    "frieda.testing.zookeeper": ("frieda.bench.systems.processes", "frieda.errors"),
    "frieda.testing.brokers": ("frieda.cli.assembly", "frieda.broker", "frieda.storage", *SHARED),
    "frieda.cli": ("frieda",),  # the one place that wires everything together
}

# Modules that are PURE: bytes and values in, bytes and values out.
PURE = (
    "frieda.wire",
    "frieda.protocol",
    "frieda.transports.framing",
    "frieda.transports.rdma.bootstrap",
    "frieda.transports.rdma.channel",
    "frieda.transports.rdma.credits",
    "frieda.transports.rdma.eager",
    "frieda.transports.rdma.frames",
    "frieda.transports.rdma.rendezvous",
    "frieda.transports.rdma.sending",
    "frieda.transports.shm.layout",
    "frieda.transports.shm.ring",
    "frieda.transports.shm.sources",
    "frieda.transports.verbs.choice",
    "frieda.transports.spin_policy",
    "frieda.storage.producer_state",
    "frieda.replication.codec",
    "frieda.replication.effects",
    "frieda.replication.epochs",
    "frieda.replication.follower",
    "frieda.replication.isr",
    "frieda.replication.leader",
    "frieda.replication.lease",
    "frieda.replication.link",
    "frieda.replication.messages",
    "frieda.replication.pending",
    "frieda.replication.settings",
    "frieda.replication.stream",
    "frieda.testing.simulation",
    "frieda.broker.parking",
    "frieda.cluster.address",
    "frieda.cluster.election",
    "frieda.cluster.nodes",
    "frieda.cluster.placement",
    "frieda.cluster.reassignment",
    "frieda.cluster.state",
    "frieda.cluster.store",
    "frieda.cluster.view",
    "frieda.clients.chunks",
    "frieda.clients.delivery",
    "frieda.clients.fetch_state",
    "frieda.clients.metadata",
    "frieda.clients.partitioner",
    "frieda.clients.routes",
    "frieda.cli.line_reader",
    "frieda.cli.record_format",
    "frieda.bench.drivers.nats_protocol",
    "frieda.bench.drivers.read_size",
    "frieda.bench.load",
    "frieda.bench.charts",
    "frieda.bench.contests",
    "frieda.bench.model",
    "frieda.bench.model_figures",
    "frieda.bench.page",
    "frieda.bench.published",
    "frieda.bench.roofline_figure",
    "frieda.bench.tables",
    "frieda.bench.ticks",
    "frieda.bench.verdict",
    "frieda.bench.comparison",
    "frieda.bench.diff",
    "frieda.ysb.cadence",
    "frieda.ysb.campaigns",
    "frieda.ysb.check",
    "frieda.ysb.events",
    "frieda.ysb.lag",
    "frieda.ysb.layout",
    "frieda.ysb.parsing",
    "frieda.ysb.schedule",
    "frieda.ysb.settings",
    "frieda.ysb.updates",
    "frieda.ysb.window",
)
IMPURE_IMPORTS = frozenset(
    {"asyncio", "socket", "time", "os", "select", "selectors", "threading", "subprocess", "uvloop"}
)


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; the links inside `frieda` are followed."""
    found: dict[str, Path] = {}
    for folder, _, files in os.walk(PACKAGE, followlinks=True):
        for file in files:
            path = Path(folder) / file
            if path.suffix == ".py":
                parts = ["frieda", *path.relative_to(PACKAGE).with_suffix("").parts]
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def imports(tree: ast.AST) -> Iterator[str]:
    """What is imported when the program runs: not what stands under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    name = f"{module}.{alias.name}"
                    yield name if name in MODULES else module
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: a relative import; write it out")
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                yield from imports(ast.Module(body=orelse, type_ignores=[]))
            case _:
                yield from imports(node)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def allowed_for(name: str) -> tuple[str, ...]:
    rules = [package for package in MAY_IMPORT if is_within(name, package)]
    return MAY_IMPORT[max(rules, key=len)]


def test_every_package_has_a_rule_of_its_own() -> None:
    missing = {name for name in MODULES if name.count(".") == 1} - set(MAY_IMPORT)
    assert not missing, f"say in MAY_IMPORT what may be imported by {', '.join(sorted(missing))}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str) -> None:
    allowed = allowed_for(name)
    everything = name.startswith("frieda.cli")
    for imported in imports(parse(name)):
        if is_within(imported, "frieda") and not everything:
            fits = any(
                imported == package if package == "frieda" else is_within(imported, package)
                for package in allowed
            )
            assert fits, (
                f"{name} imports {imported}; it may import {', '.join(allowed) or 'nothing'}"
            )


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if any(is_within(name, pure) for pure in PURE))
)
def test_a_pure_module_imports_no_input_or_output(name: str) -> None:
    found = {imported.partition(".")[0] for imported in imports(parse(name))} & IMPURE_IMPORTS
    assert not found, f"{name} is PURE and imports {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    "name", sorted(n for n in MODULES if MODULES[n].name == "__init__.py" and n != "frieda")
)
def test_a_package_file_holds_no_implementation(name: str) -> None:
    rest = [node for node in parse(name).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    if rest and isinstance(rest[0], ast.Expr) and isinstance(rest[0].value, ast.Constant):
        rest = rest[1:]
    assert not rest, f"{MODULES[name].name} of {name}: put this into a module of its own"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_is_short_enough_to_read(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name} has {lines} lines; is it still one idea?"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_says_what_it_is_for(name: str) -> None:
    tree = parse(name)
    assert not tree.body or ast.get_docstring(tree), f"{name} has no docstring"


def test_the_rules_see_an_import_that_points_up() -> None:
    tree = ast.parse(
        "from frieda.broker import no_such_module\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import frieda.cli\n"
        "else:\n    import time\n"
        "def later():\n    import os.path\n"
    )
    seen = set(imports(tree))
    assert seen == {"frieda.broker", "typing", "time", "os.path"}
    assert not any(is_within("frieda.broker", package) for package in allowed_for("frieda.wire.x"))
