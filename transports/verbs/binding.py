"""pyverbs, as the rest of this package uses it: one place for what differs between its versions.

`load` gives the classes of rdma-core 44 to 59 under one roof. What it evens out:

- `pyverbs.enums` became `pyverbs.libibverbs_enums` (both exist from 50 to 57).
- `CompChannel.fd` exists from 57 on; before, it is the descriptor that appears while the channel is made.
- Importing pyverbs gives the root logger a handler and a format, which are taken away again; and it looks up
  a logger for each object it makes, of which a completion is one (measured: 0.45 of 1.08 us), so that
  `pyverbs.base` gets a `logging` that answers with one logger for all.
- Distributions install pyverbs for their own Python; it can be loaded by any CPython of the same version, so in
  a virtual environment it is looked for in the distribution's folder too, pyverbs alone and nothing beside it.

No call of pyverbs gives up the interpreter's lock, so none that can wait may be made (an event is only asked for
on a non-blocking descriptor).
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from functools import lru_cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, Final

from frieda.errors import MissingDependencyError

DISTRIBUTION_FOLDERS: Final = (
    "/usr/lib/python3/dist-packages",
    f"/usr/lib64/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages",
    f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages",
)
INSTEAD: Final = "use tcp://, or shm:// for processes of one host, instead"
HOW_TO_INSTALL: Final = (
    "install it with  apt-get install python3-pyverbs ibverbs-providers  (Debian, Ubuntu) or  "
    f"dnf install python3-pyverbs  (Fedora, RHEL), or {INSTEAD}"
)
_CHANNEL_LINK: Final = "anon_inode:[infinibandevent]"

_finding_descriptor = threading.Lock()


class Verbs:
    """The classes of pyverbs, by their own names, and its constants (`constants.IBV_...`)."""

    def __init__(self) -> None:
        self.constants: Any = _constants()
        self.error: type[Exception] = import_module("pyverbs.pyverbs_error").PyverbsError
        for module, names in {
            "device": ("Context", "get_device_list"),
            "pd": ("PD",),
            "mr": ("MR", "MW", "MWBindInfo"),
            "cq": ("CompChannel", "CQ"),
            "qp": ("QP", "QPEx", "QPCap", "QPInitAttr", "QPInitAttrEx", "QPAttr"),
            "addr": ("GID", "GlobalRoute", "AHAttr"),
            "wr": ("SGE", "SendWR", "RecvWR"),
        }.items():
            found = import_module(f"pyverbs.{module}")
            for name in names:
                setattr(self, name, getattr(found, name))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"pyverbs has no {name} here")


@lru_cache(maxsize=1)
def load() -> Verbs:
    """pyverbs, imported once. Raises MissingDependencyError, with what to install and what to use instead."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        _find_package()
        base: Any = import_module("pyverbs.base")
        base.logging = _OneLogger
        return Verbs()
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"verbs:// needs pyverbs, which cannot be loaded here ({error}): {HOW_TO_INSTALL}"
        ) from error
    finally:
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)


def errno_of(error: Exception) -> int:
    """The errno of a pyverbs error, 0 when it has none."""
    code = getattr(error, "error_code", -1)
    return code if isinstance(code, int) and code > 0 else 0


def reason_of(error: Exception) -> str:
    """The cause in a few words, for a sentence: pyverbs' own text ends with the errno twice."""
    code = errno_of(error)
    return os.strerror(code) if code else str(error)


def make_channel(verbs: Verbs, context: Any) -> tuple[Any, int]:
    """A completion channel and its descriptor, which is non-blocking from then on."""
    with _finding_descriptor:  # another loop's thread must not make one between our two looks
        before = _channel_descriptors()
        channel = verbs.CompChannel(context)
        descriptor = getattr(channel, "fd", None)
        if descriptor is None:
            (descriptor,) = _channel_descriptors() - before
    os.set_blocking(descriptor, False)
    return channel, descriptor


def take_event(verbs: Verbs, channel: Any, queue: Any) -> bool:
    """Take one event of `queue` from its channel; False when there is none."""
    try:
        channel.get_cq_event(queue)
    except verbs.error as error:
        if errno_of(error) in (errno.EAGAIN, errno.EINTR):
            return False
        raise
    return True


class _OneLogger:
    """Stands for the module `logging` within pyverbs.base."""

    logger: Final = logging.getLogger("pyverbs")

    @classmethod
    def getLogger(cls, _name: str) -> logging.Logger:
        return cls.logger


def _find_package() -> None:
    """Have `pyverbs` in sys.modules. Raises ImportError."""
    try:
        import_module("pyverbs")
    except ImportError:
        for folder in DISTRIBUTION_FOLDERS:
            if any(Path(folder, "pyverbs", f"base{each}").exists() for each in EXTENSION_SUFFIXES):
                spec = PathFinder.find_spec("pyverbs", [folder])
                if spec is not None and spec.loader is not None:
                    package = module_from_spec(spec)
                    sys.modules["pyverbs"] = package
                    spec.loader.exec_module(package)
                    return
        raise


def _constants() -> Any:
    try:
        return import_module("pyverbs.libibverbs_enums")
    except ImportError:
        return import_module("pyverbs.enums")


def _channel_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == _CHANNEL_LINK:
                found.add(int(name))
        except OSError:  # the descriptor of the listing itself
            continue
    return found
