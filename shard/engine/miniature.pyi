"""Miniature simulations of caches; what they say for `kache advise` and the policy `auto`."""

from typing import Any

class Miniatures:
    """Caches of some of the keys, which say how all of them would do."""

    @property
    def below(self) -> int: ...
    @property
    def base(self) -> int: ...
    @property
    def sampled(self) -> int: ...
    def report(self) -> dict[str, Any]: ...
