"""Types of the compiled command table (see table.pyx)."""

from kache.commands import Row

class CommandTable:
    def take_rows(self, rows: list[Row]) -> None: ...
    def lookup(self, words: list[bytes], binary: bool = False) -> str | None: ...
