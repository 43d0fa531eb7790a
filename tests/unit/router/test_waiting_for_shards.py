"""When a router that starts says that it serves: once all shards have answered it, or are not worth waiting for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kache.router import main


class FakeRouter:
    """Links to two shards, the second of which answers when the test says so."""

    def __init__(self) -> None:
        self.links = [SimpleNamespace(index=0, state="up"), SimpleNamespace(index=1, state="handshake")]
        self.answered = asyncio.Event()

    async def all_up(self) -> None:
        await self.answered.wait()
        self.links[1].state = "up"


def process(states: dict[int, str]) -> Any:
    made = main._Process.__new__(main._Process)
    made.loop = asyncio.get_running_loop()
    made.router = FakeRouter()  # type: ignore[assignment]  # as much of one as is waited for
    made.shard_states = states
    return made


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "READY_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(main, "STARTING_WAIT_SECONDS", 30.0)


def test_one_that_is_starting_is_waited_for() -> None:
    async def run() -> None:
        made = process({0: "up", 1: "starting"})
        waiting = asyncio.create_task(made._all_up())
        await asyncio.sleep(0.3)  # longer than for one of which nothing is known
        assert not waiting.done()
        made.router.answered.set()
        assert await waiting

    asyncio.run(run())


@pytest.mark.parametrize("states", [{0: "up", 1: "down"}, {}])
def test_one_that_is_down_keeps_nobody_waiting(states: dict[int, str]) -> None:
    async def run() -> None:
        assert not await asyncio.wait_for(process(states)._all_up(), 25)

    asyncio.run(run())


def test_one_that_turns_out_to_be_down_is_not_waited_for_any_longer() -> None:
    async def run() -> None:
        made = process({0: "up", 1: "starting"})
        waiting = asyncio.create_task(made._all_up())
        await asyncio.sleep(0.1)
        made.shard_states[1] = "down"
        assert not await asyncio.wait_for(waiting, 25)

    asyncio.run(run())
