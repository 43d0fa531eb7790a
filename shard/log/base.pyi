from ..engine.engine import Host
from .writer import Writer

class Dump:
    keys: int
    frames: int
    slices: int
    restarts: int
    longest_ns: int
    longest_cpu_ns: int
    cpu_ns: int
    done: bool
    end: int
    def __init__(self, host: Host, out: Writer) -> None: ...
    def close(self) -> None: ...
    def slice(self, budget_ns: int, most_bytes: int) -> bool: ...
    @property
    def owed(self) -> tuple[int, bytes | None, int, int]: ...
    @property
    def progress(self) -> float: ...
