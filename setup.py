"""Builds the compiled modules; everything else about the package is in pyproject.toml.

Each module is compiled on a core of its own, first to C (deploy/translation.py) and then to machine code, whatever the others
are at. Which files of this project a module is made of says Cython, so that installing again compiles what has changed and
nothing else.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.append(str(Path(__file__).parent / "deploy"))
from toolchain import missing_compiler
from translation import Translators

HOT = ["-O3"]
LARGE = ["-O2"]
"""Half of what there is to compile: in three quarters of the time, and not measurably slower (bench/README.md)."""
COLD = ["-O1"]
"""What is not run for every frame is compiled for a short installation."""
ALWAYS = ["-g0", "-w"]
"""Symbols for a debugger, and warnings about what Cython has written, take time."""
SANITIZE = os.environ.get("KACHE_SANITIZE", "").split()
"""Flags in the place of all these, to compile and to link with (tests/soak/sanitized.py)."""

MODULES = {
    "kache.shard.engine.engine": LARGE,
    "kache.router.mux.multiplexer": LARGE,
    "kache.wire.codec": HOT,
    "kache.wire.reactor": HOT,
    "kache.shard.engine.effects": HOT,
    "kache.load.driver": HOT,
    "kache.shard.engine.zset": HOT,
    "kache.shard.engine.listvalue": HOT,
    "kache.shard.engine.stream_chunks": HOT,
    "kache.shard.engine.stream": HOT,
    "kache.shard.engine.fields": HOT,
    "kache.shard.engine.packed": HOT,
    "kache.shard.engine.table": HOT,
    "kache.shard.engine.blocks": HOT,
    "kache.shard.engine.hll": HOT,
    "kache.shard.engine.memory": HOT,
    "kache.shard.log.writer": HOT,
    "kache.shard.log.base": HOT,
    "kache.shard.engine.heap": HOT,
    "kache.shard.engine.sketch": HOT,
    "kache.shard.engine.queues": HOT,
    "kache.shard.engine.miniature": HOT,
    "kache.shard.scripting.lua": HOT,
    "kache.shard.scripting.evaluate": HOT,
    "kache.wire.doubles": COLD,
    "kache.router.mux.table": HOT,
    "kache.acl.rights": HOT,
    "kache.router.mux.slot_map": COLD,
    "kache.router.mux.limits": COLD,
    "kache.wire.tls": HOT,
    "kache.wire.clock": COLD,
    "kache.wire.board": COLD,
    "kache.wire.claims": COLD,
    "kache.wire.tallies": HOT,
    "kache.wire.area": COLD,
    "kache.wire.link": COLD,
    "kache.shard.log.recovery": COLD,
    "kache.shard.log.division": COLD,
    "kache.shard.log.files": COLD,
    "kache.shard.log.format": COLD,
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
    """One compiler for every core, and one sentence where there is none."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        if missing := missing_compiler():
            raise SystemExit(missing)
        self.stale = stale(self.extensions)
        with Translators(DIRECTIVES, int(self.parallel or 1)) as self.translators:
            super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile; in an editable installation what lies beside its source, and is up to date, is taken as it is."""
        if source := self.stale.get(ext._full_name):
            self.translators.translate(ext._full_name, source)
        target = Path(self.get_ext_fullpath(ext.name))
        placed = Path(*ext._full_name.split(".")).parent / target.name
        if self.editable_mode and placed.exists() and placed.stat().st_mtime >= newest([*ext.sources, *ext.depends]):
            self.mkpath(str(target.parent))
            self.copy_file(str(placed), str(target))
        else:
            super().build_extension(ext)


def newest(paths: list[str]) -> float:
    """When the last of these files was changed."""
    return max(Path(path).stat().st_mtime for path in paths)


def stale(extensions: list[Extension]) -> dict[str, str]:
    """The sources whose C files are missing or out of date, by module; the C files are the extensions' sources from here on.

    Cython is asked here and not where the extensions are listed: a sdist, and the metadata, need none of this. It would
    by itself compare with its own declarations, too, and every installation brings new copies of those.
    """
    import Cython
    from Cython.Build.Dependencies import create_dependency_tree

    tree = create_dependency_tree()
    here = Path.cwd()
    found = {}
    for each in extensions:
        source = Path(each.sources[0])
        made = source.with_suffix(".c")
        parts = [path for path in tree.all_dependencies(str(source)) if here in Path(here, path).parents]
        each.depends = sorted({*parts, "setup.py"})
        if not made.exists() or made.stat().st_mtime < newest(each.depends) or not made_by(made, Cython.__version__):
            found[each._full_name] = str(source)
        each.sources = [str(made)]
    return found


def made_by(path: Path, version: str) -> bool:
    """Whether this version of Cython wrote the C file."""
    with path.open() as file:
        return file.readline().split()[-2:-1] == [version]


setup(
    ext_modules=[
        Extension(
            name,
            [name.replace(".", "/") + ".pyx"],
            extra_compile_args=[*SANITIZE, "-w"] if SANITIZE else [*flags, *ALWAYS],
            extra_link_args=SANITIZE,
        )
        for name, flags in MODULES.items()
    ],
    cmdclass={"build_ext": BuildInParallel},
)
