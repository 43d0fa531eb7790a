"""The start of a shard that keeps something: what it tells the supervisor, and by which settings it goes on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from log_files import CLUSTER, Record, Written, counted, write_directory
from test_replies_wait import Served, run

from kache.cluster.messages import DataPlace, Dumped, Recorded, Reports, Resolved
from kache.config.settings import Config
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.files import Files
from kache.shard.log.format import LogError
from kache.shard.service.keeping import Keeper


class House:
    """A shard and its supervisor, who decides at once, under a number."""

    def __init__(self, path: Path, *configs: Config) -> None:
        self.path = path
        self.configs = [*configs]
        self.told: list[Any] = []
        self.here = Served(path / "unused")
        if not (path / manifests.MANIFEST).exists():
            manifests.write(Files(), str(path), manifests.Manifest())
        self.keeper = Keeper(self.here.host, 0, 2, bytes(16), lambda: 1_700_000_000_000, self.tell)

    def tell(self, message: Any) -> None:
        self.told.append(message)
        if isinstance(message, Reports):
            asyncio.get_running_loop().call_soon(self.keeper.resolved, Resolved([], 0, [], 5))

    def config(self) -> Config:
        """One after the other; the last one stays."""
        return self.configs.pop(0) if len(self.configs) > 1 else self.configs[0]

    async def live(self) -> None:
        await self.keeper.start(DataPlace(str(self.path), CLUSTER, ((0, 8191),)), self.config)

    async def end(self) -> None:
        await self.keeper.close(False, self.configs[0])
        self.here.reactor.close()


@pytest.mark.parametrize("gone", ["the folder", "what is in it"])
def test_a_directory_that_is_gone_is_no_empty_one(tmp_path: Path, gone: str) -> None:
    async def test() -> None:
        place = tmp_path / "shard-0000"
        place.mkdir()
        house = House(place, Config(appendonly=True))
        try:
            shutil.rmtree(place)
            if gone != "the folder":
                place.mkdir()
            with pytest.raises(LogError, match=rf"{place} .*: what this shard held is not there"):
                await house.live()
            assert not house.told and place.exists() == (gone != "the folder")
        finally:
            house.here.reactor.close()

    run(test)


@pytest.mark.parametrize("whose", [{"shard": 1}, {"shards": 3}, {"cluster": b"somebody else's."}], ids=str)
def test_files_of_others_are_refused(tmp_path: Path, whose: dict[str, Any]) -> None:
    async def test() -> None:
        log = Written(log_format.LOG, 1, 1, **{"shards": 2} | whose)
        write_directory(tmp_path, [], [log])
        house = House(tmp_path, Config(appendonly=True))
        try:
            with pytest.raises(LogError, match=rf"{tmp_path / log.name} belongs to shard {log.shard} of {log.shards}"):
                await house.live()
            assert not house.told
        finally:
            house.here.reactor.close()

    run(test)


def test_keys_of_other_shards_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a command in Python may have written them."""

    async def test() -> None:
        log = Written(log_format.LOG, 1, 1, shards=2)
        records = b"".join(
            bytes([8]) + counted(key) + counted(b"v") for key in (b"foo", b"bar")
        )  # slots 12182 and 5061
        log.frames.append(Record(log_format.EFFECTS, 1, 1_700_000_000_000, records))
        write_directory(tmp_path, [], [log])
        house = House(tmp_path, Config(appendonly=True))
        await house.live()
        await house.end()

    run(test)
    assert "has 1 key that belongs to other shards, where no client finds it ('foo' in database 0)" in caplog.text


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


SNAPSHOTS = Config(save="9999 9999")


async def answer_of(house: House, save: bool | None = None) -> str:
    """What a shard answers that is asked to save for the last time."""
    house.told.clear()
    await house.keeper.last_save(-1, save, SNAPSHOTS)
    (told,) = house.told
    assert isinstance(told, Dumped) and told.id == -1
    return told.error


def test_whoever_asks_for_a_save_is_answered_whatever_goes_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next save, or the end of the whole cluster, waits for it."""

    async def test() -> None:
        house = House(tmp_path, SNAPSHOTS)
        await house.live()
        persistence = house.keeper.persistence
        assert persistence is not None
        whole = persistence.settle
        try:

            async def settle(save: bool) -> None:
                raise MemoryError("no memory for a slice")

            persistence.settle = settle  # type: ignore[method-assign]  # a staged fault
            assert await answer_of(house) == "internal error: MemoryError('no memory for a slice')"
            persistence.settle = whole  # type: ignore[method-assign]  # a staged fault
            assert await answer_of(house) == ""

            async def dump(*, keep: bool = False, urgent: bool = False) -> None:
                raise MemoryError("no memory for a slice")

            persistence.dump = dump  # type: ignore[method-assign]  # a staged fault
            await house.keeper.dump(7, True)
            assert house.told[-1] == Dumped(7, "internal error: MemoryError('no memory for a slice')")
        finally:
            await house.end()

    run(test)
    assert "internal error in the last save" in caplog.text


def test_nothing_is_saved_where_nothing_can_be_kept(tmp_path: Path) -> None:
    async def test() -> None:
        house = House(tmp_path, SNAPSHOTS)
        try:
            assert await answer_of(house) == "nothing is kept yet"
            assert await answer_of(house, True) == "nothing is kept yet"
            assert await answer_of(house, False) == ""
        finally:
            await house.end()

    run(test)


def test_what_was_saved_and_is_gone_is_saved_again(tmp_path: Path) -> None:
    """Also if nothing has changed since: what was saved may have been removed with the directory, and memory has it all."""

    async def test() -> None:
        house = House(tmp_path, SNAPSHOTS)
        await house.live()
        try:
            house.here.host.shard.execute([b"SET", b"foo", b"v"])
            assert await answer_of(house) == "" and await answer_of(house) == ""
            for path in tmp_path.iterdir():
                path.unlink()
            assert "is not there any more: somebody has removed or moved it" in await answer_of(house)
            assert await answer_of(house) == "" and (tmp_path / manifests.MANIFEST).exists()
            assert len([*tmp_path.glob("*.base")]) == 1
        finally:
            await house.end()

    run(test)
