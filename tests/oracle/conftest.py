"""Fixtures of the oracle: one real Valkey for the session, and the server under test beside it.

Which server is under test: `KACHE_ORACLE_PORT` (anything that speaks RESP on that port), else a shard in this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .harness import Oracle, Target
from .servers import valkey
from .wire import Connection


@pytest.fixture(scope="session")
def valkey_port() -> Iterator[int]:
    """Port of a real valkey-server."""
    with valkey() as port:
        yield port


@pytest.fixture(scope="session")
def oracle(valkey_port: int) -> Iterator[Oracle]:
    """The server under test beside the real one."""
    given = os.environ.get("KACHE_ORACLE_PORT")

    def open_ours(protocol: int) -> Target:
        if given:
            return Connection(int(given), protocol)
        from .in_process import ShardTarget  # imports the compiled shard: only where it is what is tested

        target: Target = ShardTarget(protocol)
        return target

    together = Oracle(open_ours, valkey_port)
    yield together
    together.close()
