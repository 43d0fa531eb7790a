"""Builds the compiled modules; everything else about the package is in pyproject.toml.

Each module is compiled on a core of its own, first to C and then to machine code, and knows the files it includes and
the declarations it uses, so that installing again compiles what has changed and nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HOT = ["-O3"]
COLD = ["-O1"]
"""What is not run for every frame is compiled for a short installation."""

MODULES = {
    "kache.shard.engine.engine": HOT,
    "kache.router.mux.multiplexer": HOT,
    "kache.wire.codec": HOT,
    "kache.wire.reactor": HOT,
    "kache.load.driver": HOT,
    "kache.shard.engine.hll": HOT,
    "kache.wire.doubles": COLD,
    "kache.router.mux.table": HOT,
    "kache.router.mux.slot_map": COLD,
    "kache.router.mux.limits": COLD,
    "kache.wire.clock": COLD,
    "kache.wire.link": COLD,
}
"""In the order of their size: the longest begin first."""

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "auto_pickle": False,
}


class BuildInParallel(build_ext):
    """One compiler for every core."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()


def extension(name: str, flags: list[str]) -> Extension:
    source = Path(name.replace(".", "/") + ".pyx")
    parts = [str(path) for folder in {source.parent, Path("kache/wire")} for path in folder.glob("*.p[x][id]")]
    return Extension(name, [str(source)], extra_compile_args=[*flags, "-g0"], depends=sorted(parts))


setup(
    ext_modules=cythonize(
        [extension(name, flags) for name, flags in MODULES.items()],
        compiler_directives=DIRECTIVES,
        nthreads=os.cpu_count() or 1,
    ),
    cmdclass={"build_ext": BuildInParallel},
)
