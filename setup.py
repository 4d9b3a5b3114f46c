"""Builds the record loops and the shm rings as C extensions where that is possible; the rest is in pyproject.toml.

The extensions are optional: they are compiled from the very files that also run as plain Python, so
without Cython, a C compiler or Python's headers the install succeeds and the plain files are used.
"""

import logging
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED_MODULES = [
    "frieda.transports.shm.ring",
    "frieda.wire.murmur2",
    "frieda.wire.record_writer",
    "frieda.wire.records",
]

REQUIRED = os.environ.get("FRIEDA_REQUIRE_COMPILED") == "1"
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # the types of C are in the .pxd files
    "auto_pickle": False,
    "cdivision": True,  # what is divided is never negative
    "boundscheck": False,  # the loops check every length themselves
    "wraparound": False,
}


class OptionalBuildExt(build_ext):
    """Translate with Cython, compile, and go on without when either is impossible.

    FRIEDA_REQUIRE_COMPILED=1 makes that an error, for those who publish wheels.
    """

    def build_extension(self, extension: Extension) -> None:
        try:
            from Cython.Build import cythonize  # noqa: PLC0415  (it may be missing)

            (translated,) = cythonize(
                [Extension(extension.name, extension.sources)],
                build_dir=str(Path(self.build_temp) / "cython"),
                compiler_directives=DIRECTIVES,
                force=bool(self.force),
                quiet=True,
            )
            extension.sources = translated.sources
            super().build_extension(extension)
        # Whatever goes wrong here (no Cython, no compiler, no headers, a compiler that fails) has the same
        # remedy, the plain module, and the tools raise errors of many unrelated kinds.
        except (Exception, SystemExit) as error:
            if REQUIRED:
                raise
            logging.getLogger(__name__).warning(
                "%s is not compiled, its plain Python runs instead: %s", extension.name, error
            )


setup(
    ext_modules=[
        Extension(name, [name.replace(".", "/") + ".py"], optional=not REQUIRED)
        for name in COMPILED_MODULES
    ]
    if sys.implementation.name == "cpython"
    else [],
    cmdclass={"build_ext": OptionalBuildExt},
)
