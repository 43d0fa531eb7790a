"""The parts of a compiled module that is made of included files: what each defines, what is declared, in which order."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

_INCLUDE = re.compile(r'^include "(\w+)\.pxi"$', re.MULTILINE)
_DEFINED = re.compile(
    r"^(?:@cython\.\w+\n)?cdef (?:class (\w+)|[\w*\[\] ]*?(\w+)(?: =|\())|^    ([A-Z][A-Z_]+) = ", re.MULTILINE
)


class Parts:
    """The parts of one module: `folder/name.pyx` includes them, `folder/name.pxd` declares their interfaces."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = ROOT / folder
        self.name = name
        self.names = _INCLUDE.findall(self.text(f"{name}.pyx"))
        self.declared = self.defined(f"{name}.pxd")

    def text(self, file: str) -> str:
        """A source as it is."""
        return (self.folder / file).read_text()

    def defined(self, file: str) -> set[str]:
        """What a source defines at its top: classes, functions, variables, numbers."""
        return {name for found in _DEFINED.findall(self._code(file)) for name in found if name}

    def used_too_early(self, part: str) -> dict[str, set[str]]:
        """Later part -> what `part` uses of it although it is not declared."""
        words = set(re.findall(r"\w+", self._code(f"{part}.pxi")))
        later = self.names[self.names.index(part) + 1 :]
        hidden = {other: words & (self.defined(f"{other}.pxi") - self.declared) for other in later}
        return {other: found for other, found in hidden.items() if found}

    def sections(self) -> list[str]:
        """The parts that the declarations have a section of, in their order."""
        return re.findall(r"^# (\w+)\.pxi -", self.text(f"{self.name}.pxd"), re.MULTILINE)

    def _code(self, file: str) -> str:
        text = re.sub(r'""".*?"""', "", self.text(file), flags=re.DOTALL)
        return re.sub(r"#.*", "", text)
