from collections.abc import Iterator, Sequence

from ..engine.engine import Store

def payloads(store: Store, slots: Sequence[tuple[int, int]], now_ms: int) -> Iterator[bytes]: ...
