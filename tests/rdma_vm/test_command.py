"""`frieda rdma` with the kernel's rxe devices."""

import json

from frieda.cli.main import run


def test_the_list_chooses_the_address_of_the_connection(capsys):
    assert run(["rdma", "devices", "--format", "json", "--for-address", "10.77.0.2"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert (first["device"], first["gid"], first["chosen"]) == ("rxe1", "::ffff:a4d:2", True)
    assert [(each["device"], each["usable"]) for each in others] == [
        ("rxe0", True),
        ("rxe0", False),
        ("rxe1", False),
    ]


def test_the_check_measures_send_and_read(capsys):
    flags = ["--device", "rxe1", "--count", "40", "--send-bytes", "100", "--read-bytes", "100000"]
    assert run(["rdma", "check", *flags]) == 0
    with capsys.disabled():
        print("\n" + capsys.readouterr().out)
    assert run(["rdma", "check", *flags, "--format", "json"]) == 0
    send, read = json.loads(capsys.readouterr().out)
    assert (send["samples"], read["samples"]) == (40, 40)
    assert 0 < send["p50_us"] < send["max_us"]
    assert 0 < read["p50_us"] < read["max_us"]
