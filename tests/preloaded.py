"""A library in C that the processes of a test start with, so that the system tells them something else."""

from __future__ import annotations

import subprocess
from pathlib import Path


def built(source: Path, folder: Path) -> Path:
    """The library of this source, for LD_PRELOAD."""
    library = folder / source.with_suffix(".so").name
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class Preloaded:
    """A library, and the file through which those who start with it are told what to do, by the name in `variable`."""

    def __init__(self, source: Path, folder: Path, variable: str, state: bytes) -> None:
        self.variable = variable
        self.library = built(source, folder)
        self.page = folder / source.stem
        self.page.write_bytes(state)

    def environment(self) -> dict[str, str]:
        """For a cluster that is to be started with it."""
        return {"LD_PRELOAD": str(self.library), self.variable: str(self.page)}

    def set(self, state: bytes) -> None:
        """In place: whoever has mapped the file sees it at once."""
        with open(self.page, "r+b") as page:
            page.write(state)
