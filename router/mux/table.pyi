"""Types of the compiled command table (see table.pyx)."""

class CommandTable:
    def lookup(self, words: list[bytes], binary: bool = False) -> str | None: ...
