"""Where a benchmark ran: versions, kernel, processor. Never a host name, user name or path."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import import_module, metadata
from pathlib import Path
from typing import Final

import frieda

GIT_TIMEOUT_S: Final = 5.0


def describe_environment() -> dict[str, object]:
    """The facts that a benchmark's figures depend on, for its JSON."""
    return {
        "frieda": frieda.__version__,
        "git_revision": git_revision(),
        "codec_compiled": codec_compiled(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "uvloop": _version("uvloop"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
    }


def filesystem_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the file system that holds `folder` (ext4, tmpfs...); None where the kernel does not say.

    Source: proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after a lone "-".
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place, found, longest = folder.resolve(), None, -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = after.split()[0], len(point.parts)
    return found


def codec_compiled() -> bool | None:
    """Whether the record codec is the compiled one; None when this build cannot say."""
    compiled = getattr(import_module("frieda.wire.records"), "COMPILED", None)
    return None if compiled is None else bool(compiled)


def cpu_model(cpuinfo: Path) -> str | None:
    """The processor's name as the kernel gives it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def git_revision() -> str | None:
    """The commit of the checkout this code runs from, with "+changes" if it has any; else None."""
    package = Path(frieda.__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package.parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_TIMEOUT_S,
        )
        return done.stdout.strip()

    try:
        changes = "+changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changes
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
