"""The start of a shard that keeps something: what it tells the supervisor, and by which settings it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_replies_wait import Served, run

from kache.cluster.messages import DataPlace, Dumped, Recorded, Reports, Resolved
from kache.config.settings import Config
from kache.shard.log import manifest as manifests
from kache.shard.log.files import Files
from kache.shard.service.keeping import Keeper


class House:
    """A shard and its supervisor, who decides at once, under a number."""

    def __init__(self, path: Path, *configs: Config) -> None:
        self.path = path
        self.configs = [*configs]
        self.told: list[Any] = []
        self.here = Served(path / "unused")
        self.keeper = Keeper(self.here.host, 0, 2, bytes(16), lambda: 1_700_000_000_000, self.tell)

    def tell(self, message: Any) -> None:
        self.told.append(message)
        if isinstance(message, Reports):
            asyncio.get_running_loop().call_soon(self.keeper.resolved, Resolved([], 0, [], 5))

    def config(self) -> Config:
        """One after the other; the last one stays."""
        return self.configs.pop(0) if len(self.configs) > 1 else self.configs[0]

    async def live(self) -> None:
        await self.keeper.start(DataPlace(str(self.path), bytes(16)), self.config)

    async def end(self) -> None:
        await self.keeper.close(False, self.configs[0])
        self.here.reactor.close()


@pytest.mark.parametrize("logs", [False, True])
def test_what_was_decided_is_in_the_files_before_the_supervisor_is_told(tmp_path: Path, logs: bool) -> None:
    async def test() -> None:
        for life in range(2):
            house = House(tmp_path, Config(appendonly=logs, dir=str(tmp_path)))
            await house.live()
            try:
                reports, recorded = house.told
                assert reports.number == (5 if life else 0) and recorded == Recorded(5)
                found = manifests.read(Files(), str(tmp_path))
                assert found is not None and found.resolved == 5
            finally:
                await house.end()

    run(test)


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_dump_that_was_cancelled_is_no_failure(tmp_path: Path, cancelled: bool) -> None:
    async def test() -> None:
        house = House(tmp_path, Config(dir=str(tmp_path)))
        await house.live()
        try:
            dump = asyncio.ensure_future(house.keeper.dump(7, urgent=False))
            while house.keeper.persistence is None or house.keeper.persistence.dump_running is None:
                await asyncio.sleep(0)
            if cancelled:
                house.keeper.cancel()
            else:
                assert house.keeper.persistence is not None
                house.keeper.persistence.cancel()
            await dump
            assert house.told[-1] == Dumped(7, "given up")
            assert house.keeper.figures()["last_dump_ok"] == int(cancelled)
        finally:
            await house.end()

    run(test)


def test_settings_that_change_in_the_last_moment_of_loading_are_in_force(tmp_path: Path) -> None:
    """Whoever changes them is told so while it loads."""

    async def test() -> None:
        before = Config(appendonly=True, appendfsync="everysec", dir=str(tmp_path))
        after = msgspec.structs.replace(before, appendonly=False)
        house = House(tmp_path, before, before, after)
        await house.live()
        try:
            assert house.keeper.persistence is not None and not house.keeper.logging
            found = manifests.read(Files(), str(tmp_path))
            assert found is not None and found.stopped_ms
        finally:
            await house.end()

    run(test)
