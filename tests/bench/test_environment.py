"""What a result says of the machine."""

from __future__ import annotations

from pathlib import Path

from frieda.bench.environment import filesystem_of

MOUNTS = """\
22 1 0:20 / / rw,relatime - ext4 /dev/root rw
23 22 0:21 / /data rw shared:1 - xfs /dev/sdb rw
24 23 0:22 / /data/my\\040files rw - btrfs /dev/sdc rw
25 22 0:23 / /dat rw - tmpfs none rw
26 22 0:24 / /data rw - zfs pool rw
"""


def test_a_folder_is_on_the_file_system_that_is_mounted_nearest_and_last(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    told = {
        folder: filesystem_of(Path(folder), mounts)
        for folder in ("/no-such", "/data/x", "/data/my files/x", "/dat", "/dat/x")
    }
    assert list(told.values()) == ["ext4", "zfs", "btrfs", "tmpfs", "tmpfs"]


def test_a_kernel_that_does_not_say_leaves_it_open(tmp_path: Path) -> None:
    assert filesystem_of(tmp_path, tmp_path / "absent") is None
    assert filesystem_of(tmp_path)
