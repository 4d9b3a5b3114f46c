"""A virtual machine with two soft-RoCE devices, made of Debian's own packages, that runs one command.

    python tests/rdma_vm/machine.py [--deadline-s 280] -- COMMAND [ARGUMENT...]

Debian's kernel is downloaded and unpacked, not installed. It boots under qemu's own emulator (no KVM needed) with
an initramfs of busybox and the modules for 9p, rdma_rxe and veth. The root of the host is mounted by 9p,
read-only, under an overlay in memory, so the guest sees this checkout, this Python and every installed library,
may write anywhere, and changes nothing outside. The command runs as root in the folder it was called from; its
output comes through the console as it is written, its exit code through a small shared folder, whose place the
command finds in FRIEDA_VM_RESULTS (and the caller of `run` in `results`). A hard deadline kills the machine.

Exit code: the command's own; 3 when the machine failed or was killed; 0 after saying why, when what it takes is not
installed and CI is not set.

In the guest: veth0 (10.77.0.1, rxe0) and veth1 (10.77.0.2, rxe1) are the ends of one wire. Both lie in the first
network namespace, because rxe of this kernel works in no other; rules keep traffic between the two addresses on
the wire rather than on the loopback device.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CACHE: Final = HERE.parents[1] / ".venvs" / "rdma-vm"
MODULES: Final = (
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "crc32_generic",  # rdma_rxe asks for the algorithm by name and does not load without it
    "ib_uverbs",
    "rdma_ucm",
    "rdma_rxe",
    "veth",
)
PYVERBS: Final = "/usr/lib/python3/dist-packages/pyverbs"
TOOLS: Final = {  # what must be there -> the package that has it
    "/usr/bin/qemu-system-x86_64": "qemu-system-x86",
    "/bin/busybox": "busybox-static",
    "/bin/cpio": "cpio",
    "/sbin/depmod": "kmod",
    "/bin/ip": "iproute2",
    "/usr/bin/rdma": "iproute2",
    "/usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so": "ibverbs-providers",
    PYVERBS: "python3-pyverbs",
    "/usr/bin/apt-get": "apt",
}
MACHINE_FAILED: Final = 3


class MachineError(Exception):
    """The machine could not be built or did not do its work; the sentence says why."""


def missing_packages() -> list[str]:
    """The Debian packages that are not installed here and are needed."""
    return sorted({package for path, package in TOOLS.items() if not Path(path).exists()})


def why_impossible() -> str | None:
    """Why no machine can run here, and what to do; None when one can."""
    if platform.machine() != "x86_64":
        return f"the virtual machine is made for x86-64 and this is {platform.machine()}"
    if not any(Path(PYVERBS, f"base{each}").exists() for each in EXTENSION_SUFFIXES):
        version = ".".join(map(str, sys.version_info[:2]))
        if Path(PYVERBS).exists():
            return f"python3-pyverbs is made for another Python than this one, {version}"
    if missing := missing_packages():
        return (
            f"not installed: {', '.join(missing)}; on Debian 12 run as root:\n"
            f"    apt-get install --no-install-recommends {' '.join(missing)}"
        )
    return None


class Kernel:
    """Debian's current kernel, unpacked under `cache`, and an initramfs for it."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.package = _kernel_package()
        self.version = self.package.removeprefix("linux-image-")
        self.root = cache / self.package
        self.image = self.root / "boot" / f"vmlinuz-{self.version}"
        self.initramfs = cache / "initramfs.gz"

    def fetch(self) -> None:
        """Download and unpack it, unless an earlier run did."""
        if not (self.root / "complete").exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            _checked(["apt-get", "download", "-q", self.package], cwd=self.root)
            (package,) = self.root.glob("*.deb")
            _checked(["dpkg-deb", "-x", str(package), str(self.root)])
            package.unlink()
            _checked(["depmod", "-b", str(self.root), self.version])
            (self.root / "complete").touch()

    def build_initramfs(self) -> None:
        """busybox, the modules in the order of their dependencies, and `guest-init` as its /init."""
        folder = self._cache / "initramfs"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "modules").mkdir(parents=True)
        (folder / "bin").mkdir()
        shutil.copy("/bin/busybox", folder / "bin" / "busybox")
        shutil.copy(HERE / "guest-init", folder / "init")
        (folder / "init").chmod(0o755)
        order: list[str] = []
        for path in self._module_files():
            if path.name not in order:
                order.append(path.name)
                shutil.copy(path, folder / "modules" / path.name)
        (folder / "modules" / "order").write_text("\n".join(order) + "\n")
        pack = 'find . | cpio -o -H newc --quiet | gzip -1 > "$0"'
        _checked(["bash", "-o", "pipefail", "-c", pack, str(self.initramfs)], cwd=folder)

    def _module_files(self) -> list[Path]:
        found: list[Path] = []
        for module in MODULES:
            listed = _checked(
                ["modprobe", "-d", str(self.root), "-S", self.version, "--show-depends", module]
            )
            for line in listed.splitlines():
                if line.startswith("insmod "):  # what is built in says "builtin"
                    found.append(Path(line.split()[1]))
        return found


def run(
    command: Sequence[str],
    *,
    deadline_s: float,
    results: Path,
    environment: Mapping[str, str] | None = None,
    kernel: Kernel | None = None,
) -> int:
    """Boot, run `command` in the current folder, and return its exit code; its output goes to standard output.

    `results`: an empty folder that the command may write to, as FRIEDA_VM_RESULTS.
    Raises MachineError when the machine cannot be built, ends without an exit code, or outlives `deadline_s`.
    """
    if kernel is None:
        kernel = _current_kernel()
    variables = {
        "HOME": "/root",
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(environment or {}),
    }
    lines = ["#!/bin/bash", f"cd {shlex.quote(os.getcwd())} || exit 125"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += ["export FRIEDA_VM_RESULTS=/mnt"]
    lines += [f". {shlex.quote(str(HERE / 'guest-network'))} || exit 126"]
    lines += [shlex.join(command)]
    (results / "run").write_text("\n".join(lines) + "\n")
    # Nehalem: with newer ones the C library picks vector code, which is slow to emulate (measured: 1.5 times).
    # fmt: off
    qemu = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "2048",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(kernel.image), "-initrd", str(kernel.initramfs),
        "-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr",
        "-virtfs", "local,path=/,mount_tag=host,security_model=passthrough,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={results},mount_tag=results,security_model=none",
        "-device", "virtio-rng-pci",
    ]
    # fmt: on
    with subprocess.Popen(qemu, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            machine.kill()

        timer = threading.Timer(deadline_s, kill)
        timer.start()
        try:
            assert machine.stdout is not None
            for line in machine.stdout:
                sys.stdout.write(_printable(line))
                sys.stdout.flush()
        finally:
            timer.cancel()
            machine.kill()
    if killed.is_set():
        raise MachineError(f"the virtual machine was killed after its deadline of {deadline_s:g} s")
    code = results / "exit-code"
    if not code.exists():
        raise MachineError(
            f"the virtual machine ended without an exit code of the command (qemu: {machine.returncode})"
        )
    return int(code.read_text())


def _current_kernel() -> Kernel:
    try:
        kernel = Kernel(CACHE)
        kernel.fetch()
    except MachineError:
        if os.geteuid() != 0:
            raise
        _checked(["apt-get", "update", "-qq"])  # what apt knows is too old for the mirror
        kernel = Kernel(CACHE)
        kernel.fetch()
    kernel.build_initramfs()
    return kernel


def _printable(line: bytes) -> str:
    """A line of the console without what a serial line adds: carriage returns and the firmware's escapes."""
    text = line.decode(errors="replace").rstrip("\r\n")
    return re.sub(r"\x1b(\[[0-9;?=]*[A-Za-z]|c)", "", text) + "\n"


def _kernel_package() -> str:
    """The package that `linux-image-amd64` stands for now."""
    asked = ["apt-cache", "depends", "--important", "linux-image-amd64"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Depends: (linux-image-\S+)", answer)
    if found is None:
        raise MachineError("apt knows no package linux-image-amd64; run  apt-get update  as root")
    return found[1]


def _checked(command: Sequence[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        raise MachineError(f"{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command in a machine with soft-RoCE.")
    parser.add_argument("--deadline-s", type=float, default=280.0)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--results", type=Path, default=CACHE / "results")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if reason := why_impossible():
        print(f"SKIPPED: no soft-RoCE machine here: {reason}", flush=True)
        return MACHINE_FAILED if os.environ.get("CI") else 0
    shutil.rmtree(arguments.results, ignore_errors=True)
    arguments.results.mkdir(parents=True)
    environment = dict(each.split("=", 1) for each in arguments.env)
    try:
        return run(
            arguments.command,
            deadline_s=arguments.deadline_s,
            results=arguments.results.resolve(),
            environment=environment,
        )
    except MachineError as error:
        print(f"soft-RoCE machine: {error}", file=sys.stderr)
        return MACHINE_FAILED


if __name__ == "__main__":
    sys.exit(main())
