"""`frieda rdma`, where there is no device and where there are made-up ones. The real thing is in tests/rdma_vm."""

from __future__ import annotations

import json
from ipaddress import IPv6Address

import pytest

from frieda.cli import rdma
from frieda.cli.exit_codes import ExitCode
from frieda.cli.main import run
from frieda.errors import MissingDependencyError
from frieda.transports.verbs.choice import ETHERNET, ROCE_V2, Device, Gid, Port

DEVICES = (
    Device("broken0", (), "it cannot be opened: Permission denied"),
    Device(
        "mlx5_0",
        (
            Port(
                1,
                "active",
                ETHERNET,
                0,
                4,
                (
                    Gid(0, IPv6Address("fe80::1"), ROCE_V2),
                    Gid(1, IPv6Address("::ffff:10.0.0.1"), ROCE_V2),
                    Gid(2, IPv6Address("2001:db8::1"), ROCE_V2),
                ),
            ),
        ),
    ),
)


@pytest.fixture
def there_are(monkeypatch):
    def set_devices(*devices: Device) -> None:
        monkeypatch.setattr(rdma, "load", object)
        monkeypatch.setattr(rdma, "read_devices", lambda verbs: devices)

    return set_devices


@pytest.mark.parametrize("command", ["devices", "check"])
def test_without_pyverbs_one_sentence_says_what_to_install(monkeypatch, capsys, command):
    def missing() -> None:
        raise MissingDependencyError("verbs:// needs pyverbs: apt-get install python3-pyverbs")

    monkeypatch.setattr(rdma, "load", missing)
    assert run(["rdma", command]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "frieda: verbs:// needs pyverbs: apt-get install python3-pyverbs\n"


def test_without_a_device_the_list_is_a_sentence_that_says_how_to_get_one(there_are, capsys):
    there_are()
    assert run(["rdma", "devices"]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert printed.startswith("this host has no RDMA device")
    assert "rdma link add rxe0" in printed
    assert "shm://" in printed
    assert run(["rdma", "devices", "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == []


def test_without_a_device_the_check_fails_with_the_same_advice(there_are, capsys):
    there_are()
    assert run(["rdma", "check"]) == ExitCode.USAGE
    assert "this host has no RDMA device" in capsys.readouterr().err


def test_the_list_says_what_would_be_chosen_and_why_the_others_not(there_are, capsys):
    there_are(*DEVICES)
    assert run(["rdma", "devices"]) == ExitCode.OK
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["DEVICE", "PORT", "STATE"]
    assert "::ffff:" in lines[0]
    assert lines[0].endswith("chosen: RoCE v2, IPv4")
    assert lines[1].endswith("usable: RoCE v2, IPv6")
    assert [line.partition("no: ")[2] for line in lines[2:]] == [
        "it cannot be opened: Permission denied",
        "the GID is link-local",
    ]


def test_the_list_as_json_has_every_field(there_are, capsys):
    there_are(*DEVICES)
    assert run(["rdma", "devices", "--format", "json", "--for-address", "2001:db8::1"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert first == {
        "device": "mlx5_0",
        "port": 1,
        "state": "active",
        "link_layer": "Ethernet",
        "lid": 0,
        "gid_index": 2,
        "gid": "2001:db8::1",
        "gid_kind": "RoCE v2",
        "chosen": True,
        "usable": True,
        "why": "RoCE v2, the connection's own address",
        "verdict": "chosen: RoCE v2, the connection's own address",
    }
    assert [each["chosen"] for each in others] == [False] * 3


def test_a_check_of_a_device_that_is_not_there_names_those_that_are(there_are, capsys):
    there_are(*DEVICES)
    assert run(["rdma", "check", "--device", "mlx5_7"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "device=mlx5_7" in said
    assert "mlx5_0" in said


def test_a_check_prints_a_row_for_each_operation(there_are, capsys, monkeypatch):
    there_are(*DEVICES)

    async def measure(verbs, route, plan, measured):
        assert (route.device, plan.count, plan.send_bytes) == ("mlx5_0", 20_000, 64)
        for operation in ("SEND", "READ"):
            for ns in range(1000, 1000 + plan.count):
                measured(operation, ns)

    monkeypatch.setattr(rdma, "check", measure)
    assert run(["rdma", "check", "--send-bytes", "64", "--format", "json"]) == ExitCode.OK
    send, read = json.loads(capsys.readouterr().out)
    assert (send["operation"], send["size_bytes"], send["samples"]) == ("SEND", 64, 20_000)
    assert read["p50_us"] == pytest.approx(11, rel=0.01)
    assert read["max_us"] == pytest.approx(21, rel=0.01)
    assert run(["rdma", "check", "--send-bytes", "64"]) == ExitCode.OK
    assert "mlx5_0 port 1, ::ffff:" in capsys.readouterr().out
