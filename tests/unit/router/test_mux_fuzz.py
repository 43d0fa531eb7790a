"""Mutated pipelines in both protocols: no traceback, no hang, and the same answers however the bytes are cut."""

from __future__ import annotations

import asyncio
import logging
import random
import socket

import pytest
from broken_requests import cuts, mutate, pipeline
from test_mux import Cluster, cluster, run


async def answers(running: Cluster, data: bytes, pieces: list[int]) -> bytes:
    """Everything that comes back for `data`, cut into `pieces` (sizes), until the router closes.

    On a plain socket: a stream whose write fails, because the router has closed behind an error, forgets what it has
    received.
    """
    for shard in running.shards:
        shard.data.clear()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", running.port)) as sock:
        sock.setblocking(False)
        at = 0
        try:
            for size in [*pieces, len(data)]:
                await loop.sock_sendall(sock, data[at : at + size])
                at += size
                await asyncio.sleep(0)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed after an error, which has been sent before
        received = b""
        try:
            while part := await asyncio.wait_for(loop.sock_recv(sock, 65536), 30):
                received += part
        except ConnectionResetError:
            pass  # what was sent before the reset has been read
        return received


@pytest.mark.parametrize("seed", range(6))
def test_results_do_not_depend_on_chunks(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        dice = random.Random(seed)
        async with cluster(dice.choice((1, 2, 4)), seed) as running:
            for _ in range(30):
                data = mutate(dice, pipeline(dice, speak_binary=dice.random() < 0.5))
                whole = await answers(running, data, [])
                assert await answers(running, data, cuts(dice, len(data))) == whole, data
            while running.router.statistics()["in_flight"] or running.router.output_bytes:
                await asyncio.sleep(0.005)

    run(test, 60)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
