"""Cython in processes of its own: one module is translated on one core while another is compiled on the next.

Used by setup.py, whose threads each translate a module and compile what came of it. A process stays for all modules that
it is asked for, since loading Cython takes as long as translating a small one.

    setup.py   module <tab> source      ──►  process
               "done", or anything else ◄──           Cython's own words are on standard error
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from queue import SimpleQueue
from typing import Any

__all__ = ["Translators"]

DONE = "done\n"
OBJECTS_BETWEEN_COLLECTIONS = 1_000_000
"""Trees of a hundred thousand nodes that live until the module is done: collecting at Python's pace is a quarter of the time."""


class Translators:
    """At most `count` processes, started when they are needed; leaving the block ends them."""

    def __init__(self, directives: dict[str, Any], count: int) -> None:
        self._command = [sys.executable, __file__, json.dumps(directives)]
        self._started: list[subprocess.Popen[str]] = []
        self._idle: SimpleQueue[subprocess.Popen[str] | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Translators:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.communicate()

    def translate(self, module: str, source: str) -> None:
        """Makes the C file beside `source`; raises SystemExit, with Cython's reasons printed, when it cannot. From any thread."""
        process = self._idle.get() or self._start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{module}\t{source}\n")
            process.stdin.flush()
            done = process.stdout.readline() == DONE
        except OSError:
            done = False
        finally:
            self._idle.put(process)
        if not done:
            raise SystemExit(f"Cython could not translate {source}; what it said is above.")

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._started.append(process)
        return process


def main(directives: dict[str, Any]) -> None:
    """Translates what is asked for on standard input until that ends."""
    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError
    from setuptools import Extension

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Cython prints
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    for line in sys.stdin:
        module, source = line.rstrip("\n").split("\t")
        try:
            cythonize([Extension(module, [source])], force=True, quiet=True, compiler_directives=directives)
        except CompileError:
            answers.write("failed\n")
        else:
            answers.write(DONE)
        answers.flush()
        gc.collect()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
