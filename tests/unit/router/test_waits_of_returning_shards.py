"""Who waits on several shards, one of which answers LOADING and is back before anybody has looked at that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kache.errors import CommandError
from kache.router.scatter.blocking import Wait, _Pop

LOADING = CommandError("LOADING Kache is loading the dataset in memory")


class FakeRouter:
    """What a wait uses of a router: one shard, which serves when the test says so."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_served = self.is_away = False
        self.asked: list[asyncio.Future[Any]] = []
        self.returning: list[Callable[[], object]] = []

    def serves(self, shard: int) -> bool:
        return self.is_served

    def comes_back(self, shard: int) -> bool:
        return self.is_away

    def when_back(self, shard: int, again: Callable[[], object]) -> None:
        self.returning.append(again)

    def yield_to_loop(self) -> None:
        pass

    def block(self, *_: object) -> Any:
        self.asked.append(self.loop.create_future())
        return SimpleNamespace(future=self.asked[-1], cancel=lambda: None)


def waiting(router: FakeRouter) -> Wait:
    session: Any = SimpleNamespace(unblocked=lambda: None)
    made = Wait(router, session, 0, None)  # type: ignore[arg-type]  # as much of a router as it uses
    made.register(0, "_await", [b"key"])
    return made


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_that_loads_is_waited_for() -> None:
    async def run() -> None:
        router = FakeRouter()
        wait = waiting(router)
        router.asked[0].set_exception(LOADING)
        await turn()
        assert not wait.outcome.done() and len(router.asked) == 1
        [again] = router.returning
        again()
        assert len(router.asked) == 2

    asyncio.run(run())


def test_one_that_is_back_by_then_is_asked_again() -> None:
    """It would be waited for in vain: it has said already that it is back."""

    async def run() -> None:
        router = FakeRouter()
        wait = waiting(router)
        router.asked[0].set_exception(LOADING)
        router.is_served = True
        await turn()
        assert not wait.outcome.done() and len(router.asked) == 2 and not router.returning

    asyncio.run(run())


def test_one_that_is_away_is_not_asked_before_it_is_back() -> None:
    async def run() -> None:
        router = FakeRouter()
        router.is_away = True
        waiting(router)
        assert not router.asked
        router.is_away, [again] = False, router.returning
        again()
        assert len(router.asked) == 1

    asyncio.run(run())


@pytest.mark.parametrize("refusal", [LOADING, CommandError("CLUSTERDOWN shard 0 is down; nothing was executed")])
@pytest.mark.parametrize("transaction", [0, 7])
def test_a_look_that_was_refused_by_one_that_is_back(refusal: CommandError, transaction: int) -> None:
    """It has nothing for now, and is waited on. Inside EXEC nobody waits: there the refusal is the reply."""
    router: Any = SimpleNamespace(serves=lambda shard: True, comes_back=lambda shard: False)
    pop = _Pop.__new__(_Pop)
    session: Any = SimpleNamespace(transaction=transaction)
    pop.router, pop.session = router, session
    if transaction:
        with pytest.raises(CommandError, match=refusal.code):
            pop._checked(0, refusal)
    else:
        assert pop._checked(0, refusal) is None


def test_a_look_that_was_refused_by_one_that_is_down_is_refused() -> None:
    router: Any = SimpleNamespace(serves=lambda shard: False, comes_back=lambda shard: False)
    pop = _Pop.__new__(_Pop)
    session: Any = SimpleNamespace(transaction=0)
    pop.router, pop.session = router, session
    with pytest.raises(CommandError, match="LOADING"):
        pop._checked(0, LOADING)
