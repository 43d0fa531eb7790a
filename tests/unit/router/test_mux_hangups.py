"""Clients that are not read: one that hangs up is noticed, one that never reads its messages is closed."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import pytest
from test_mux import Cluster, cluster, replies, resp, run

from kache.router import registry
from kache.router.mux.multiplexer import Router, Session

POLLERS = pytest.mark.parametrize("seed", [0, 1], ids=["epoll", "loop"])
"""Even seeds use the reactor's own epoll; without it hang-ups are looked for once a second."""


class Gate:
    """TIME as a command that takes until somebody opens the gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.sessions: list[Session] = []
        monkeypatch.setitem(registry.LOCALS, "time", self.wait)

    async def wait(self, router: Router, session: Session) -> str:
        self.sessions.append(session)
        await self.open.wait()
        return "OPEN"


async def wait_until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def behind_a_barrier(running: Cluster, gate: Gate, behind: bytes) -> tuple[socket.socket, Session]:
    """A client whose TIME waits, and whose input behind it is not read."""
    client = socket.create_connection(("127.0.0.1", running.port))
    client.sendall(resp("TIME") + behind)
    await wait_until(lambda: gate.sessions)
    (session,) = gate.sessions
    await wait_until(lambda: session.blocked)
    assert not session.peer_gone
    return client, session


@POLLERS
def test_a_half_close_behind_a_barrier_is_noticed_and_loses_nothing(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    async def test() -> None:
        gate = Gate(monkeypatch)
        async with cluster(3, seed) as running:
            behind = b"".join(resp("SET", f"k{number}", "v") for number in range(1000))
            client, session = await behind_a_barrier(running, gate, behind)
            client.shutdown(socket.SHUT_WR)
            await wait_until(lambda: session.peer_gone)
            assert session.blocked
            before = running.router.iterations
            await asyncio.sleep(0.05)
            assert running.router.iterations - before < 5, "it spins"
            gate.open.set()
            reader, writer = await asyncio.open_connection(sock=client)
            assert await reader.read(-1) == b"+OPEN\r\n" + b"+OK\r\n" * 1000
            writer.close()
            assert running.router.sessions() == []

    run(test)


@POLLERS
@pytest.mark.parametrize("half_close_first", [False, True])
def test_a_reset_behind_a_barrier_closes_at_once(
    monkeypatch: pytest.MonkeyPatch, seed: int, half_close_first: bool
) -> None:
    async def test() -> None:
        gate = Gate(monkeypatch)
        async with cluster(1, seed) as running:
            client, session = await behind_a_barrier(running, gate, resp("SET", "a", "1"))
            if half_close_first:
                client.shutdown(socket.SHUT_WR)
                await wait_until(lambda: session.peer_gone)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await wait_until(lambda: session.gone)
            gate.open.set()
            await asyncio.sleep(0.01)
            assert running.shards[0].executed == []
            assert running.router.statistics()["in_flight"] == 0

    run(test)


def test_a_reset_behind_a_full_pipeline_closes_nothing_by_itself() -> None:
    """What the client sent before is executed as long as nobody has tried to answer it."""

    async def test() -> None:
        async with cluster(1, max_inflight_per_client=16) as running:
            running.shards[0].hold = True
            client = socket.create_connection(("127.0.0.1", running.port))
            client.sendall(b"".join(resp("SET", f"k{number}", "v") for number in range(100)))
            await wait_until(lambda: running.shards[0].executed)
            (session,) = running.router.sessions()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await wait_until(lambda: session.peer_gone)
            assert not session.gone
            running.shards[0].release()
            await wait_until(lambda: session.gone)
            # What it had sent is on its way to the shard when the reply is refused.
            await wait_until(lambda: len(running.shards[0].executed) > 16)

    run(test)


def test_a_subscriber_that_never_reads_is_closed_at_the_hard_limit(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        limits = (("normal", 0, 0, 0), ("slave", 0, 0, 0), ("pubsub", 1 << 20, 0, 0))
        async with cluster(1, client_output_buffer_limit=limits) as running:
            reading = await running.connect()
            reading[1].write(resp("PING"))
            assert await replies(reading[0], 1) == ["PONG"]
            silent = socket.create_connection(("127.0.0.1", running.port))
            silent.sendall(resp("PING"))
            await wait_until(lambda: len(running.router.sessions()) == 2)
            session = running.router.sessions()[1]
            await wait_until(lambda: session.commands)
            message = b"+" + b"m" * (1 << 16) + b"\r\n"
            most = 0
            while not session.gone:
                running.shards[0].push(session.id, message)
                await asyncio.sleep(0)
                most = max(most, session.output_bytes)
                assert most < 4 << 20, "it grows"
            assert running.router.statistics()["closed_by_output_limit"] == 1
            assert running.router.output_bytes == 0
            reading[1].write(resp("PING"))
            assert await replies(reading[0], 1) == ["PONG"]
            silent.close()

    with caplog.at_level(logging.WARNING, "kache.router"):
        run(test)
    assert [record for record in caplog.records if "over client-output-buffer-limit" in record.getMessage()]


def test_runs_belong_to_no_transaction() -> None:
    async def test() -> None:
        async with cluster(2) as running:
            reader, writer = await running.connect()
            keys = [running.key_on(0), running.key_on(1)]
            # A run of a session's own, parts merged in C, parts merged in Python, and a coroutine's question.
            writer.write(resp("SET", keys[0], "1") + resp("MGET", *keys) + resp("DBSIZE") + resp("SCAN", "0"))
            await replies(reader, 4)
            sent = [number for shard in running.shards for number in shard.transactions]
            assert len(sent) >= 6
            assert set(sent) == {0}

    run(test)
