"""Types of the compiled load generator (see driver.pyx)."""

Patch = tuple[int, int, int, int]
Operation = tuple[bytes, list[Patch], int, int, float]

class Generator:
    open: int
    issued: int
    completed: int
    lost: int
    disconnects: int
    bytes_in: int
    bytes_out: int
    latest: int
    limit: int
    def __init__(
        self,
        connections: int,
        depth: int,
        operations: list[Operation],
        *,
        binary: bool,
        keys: int,
        exponent: float = 0,
        value_size: int = 32,
        members: int = 100,
        seed: int = 1,
        rate: float = 0,
        sequential: bool = False,
        portable: bool = False,
    ) -> None: ...
    def attach(self, fd: int) -> None: ...
    def begin(self, now_ns: int, limit: int = 0) -> None: ...
    def stop(self) -> None: ...
    def reset_counters(self) -> None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    def counters(self, operation: int) -> tuple[int, int, int, int, int, int, int]: ...
    def histogram(self, operation: int) -> list[tuple[int, int]]: ...
    def error_texts(self) -> list[bytes]: ...
    def step(self, until_ns: int) -> None: ...

def zipf_sample(n: int, exponent: float, seed: int, count: int) -> list[int]: ...
def bucket_bounds(value: int) -> int: ...
