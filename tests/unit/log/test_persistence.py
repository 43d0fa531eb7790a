"""A shard with a log and dumps, on real files: what is on disk is the state that it has."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from log_files import written
from state import state

from kache.commands import DIGEST
from kache.config.settings import Config
from kache.shard.engine.engine import Host, Replay, ShardReactor, Store
from kache.shard.engine.memory import only_free
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log import pace
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import read_header
from kache.shard.log.persistence import DumpError, Identity, Persistence
from kache.shard.log.recovery import Recovery
from kache.shard.service.cleanup import Cleanup
from kache.shard.shard import Shard

SEED = bytes(16)
NOW = 1_700_000_000_000
ROUNDS = int(os.environ.get("KACHE_PERSISTENCE_ROUNDS", "6"))
IDENTITY = Identity(b"cluster of tests", 0, 1, SEED)
Frame = tuple[int, int, int, bytes]


def frames_of(path: Path) -> list[Frame]:
    """(kind, sequence, unix ms, payload) of a file, each proven to be what the format says byte for byte."""
    data = written(path)
    header = read_header(data, str(path))
    at, found = log_format.HEADER_SIZE, []
    while at < len(data):
        magic, kind, flags, length, sequence, behind, _, now_ms, _ = struct.unpack_from("<HBBIQIIqQ", data, at)
        payload = data[at + 40 : at + 40 + length]
        whole = log_format.frame(kind, payload, sequence, header.salt, at, now_ms=now_ms, behind=behind, flags=flags)
        assert data[at : at + 40 + length] == whole and magic == 0x4B46
        found.append((kind, sequence, now_ms, payload))
        at += 40 + length
    return found


def recovered(directory: Path, now_ms: int) -> Store:
    """The state that the files of a directory stand for."""
    manifest = manifests.read(Files(), str(directory))
    assert manifest is not None
    for name in manifest.names():
        frames_of(directory / name)
    store = Store(SEED)
    recovery = Recovery(Files(), str(directory), store, manifest)
    while recovery.step(10**9):
        pass
    assert recovery.cut is None
    recovery.close()
    store.check()
    Replay(store).finish(now_ms)
    return store


class Kept:
    """A shard with its persistence in a directory."""

    def __init__(self, directory: Path, files: Files, **settings: Any) -> None:
        self.now_ms = NOW
        self.cleanup = Cleanup(lambda: None, only_free)
        self.cleanup.start()
        self.shard = Shard(now_ms=NOW, cleanup=self.cleanup, hash_seed=SEED)
        self.reactor = ShardReactor(asyncio.get_running_loop())
        self.host = Host(self.shard, self.reactor, DIGEST, 1, 2)
        self.config = Config(**{"appendonly": True, **settings})
        self.persistence = Persistence(self.host, files, str(directory), IDENTITY, lambda: self.now_ms, self.config)
        self.directory = directory

    def execute(self, *words: object) -> bytes:
        reply = self.shard.execute([word if isinstance(word, bytes) else str(word).encode() for word in words])
        self.host.commit()
        return reply

    async def durable(self) -> None:
        writer = self.persistence.writer
        assert writer is not None
        self.host.commit()
        writer.sync()
        while writer.durable < writer.sequence:
            await asyncio.sleep(0.001)

    def same_as_on_disk(self) -> None:
        now = self.reactor.clock.now()
        self.shard.set_time(now)
        assert state(recovered(self.directory, now)) == state(self.shard.store)


@asynccontextmanager
async def kept(directory: Path, files: Files | None = None, **settings: Any) -> AsyncIterator[Kept]:
    directory.mkdir(exist_ok=True)
    shard = Kept(directory, files or Files(), **settings)
    await shard.persistence.begin(None, 0)
    try:
        yield shard
    finally:
        await shard.persistence.close()
        shard.reactor.close()
        shard.cleanup.stop()


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def pieces(draw: random.Random, most: int) -> list[bytes]:
    return [b"%d" % draw.randrange(6000) for _ in range(draw.randint(1, most))]


def command(draw: random.Random) -> list[object]:
    """A random command over few keys; collections become large now and then."""
    tag = draw.randrange(3)

    def key(kind: str) -> str:
        return f"{{{tag}}}{kind}{draw.randrange(2)}"

    def anything() -> str:
        return key(draw.choice("shlzt"))

    most = draw.choice((3, 3, 3, 3, 30, 30, 30, 2500))
    some = pieces(draw, most)
    return draw.choice(
        [
            lambda: ["SET", key("s"), draw.randbytes(draw.choice((0, 9, 3000)))],
            lambda: ["SET", key("s"), "v", "PX", draw.choice((5, 50000))],
            lambda: ["APPEND", key("s"), draw.randbytes(30)],
            lambda: ["RPUSH", key("l"), *some],
            lambda: ["RPUSH", key("l"), *some],
            lambda: ["LPUSH", key("l"), *some],
            lambda: ["LPOP", key("l"), len(some)],
            lambda: ["RPOP", key("l"), len(some)],
            lambda: ["LSET", key("l"), draw.randrange(40), "set"],
            lambda: ["LINSERT", key("l"), "BEFORE", some[0], "inserted"],
            lambda: ["LTRIM", key("l"), draw.randrange(5), -draw.randrange(1, 9)],
            lambda: ["LREM", key("l"), 0, some[0]],
            lambda: ["HSET", key("h"), *(word for field in some for word in (field, field[:2]))],
            lambda: ["HDEL", key("h"), *some],
            lambda: ["HPEXPIRE", key("h"), draw.choice((5, 50000)), "FIELDS", len(some), *some],
            lambda: ["SADD", key("t"), *some],
            lambda: ["SREM", key("t"), *some],
            lambda: ["ZADD", key("z"), *(word for member in some for word in (draw.randrange(99), member))],
            lambda: ["ZREM", key("z"), *some],
            lambda: ["ZPOPMIN", key("z"), len(some)],
            lambda: ["DEL", anything()],
            lambda: ["PEXPIRE", anything(), draw.choice((5, 50000))],
            lambda: ["PERSIST", anything()],
            lambda: ["RENAME", anything(), anything()],
            lambda: ["RENAME", anything(), f"{{{tag}}}{draw.randrange(40)}"],
            lambda: ["COPY", anything(), anything(), "DB", draw.randrange(2), "REPLACE"],
            lambda: ["MOVE", anything(), 1],
            lambda: ["SWAPDB", 0, 1] if draw.random() < 0.2 else ["DEL", anything()],
            lambda: ["FLUSHDB"] if draw.random() < 0.05 else ["DEL", anything()],
        ]
    )()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_dumps_while_everything_changes(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each dump, and behind it, the files are the live state; every way a key comes later has come."""
    monkeypatch.setattr(pace, "SLICE_NS", 1)
    draw = random.Random(seed)

    async def test() -> None:
        async with kept(tmp_path / "shard") as shard:
            for _ in range(400):
                shard.execute(*command(draw))
            for _ in range(3):
                monkeypatch.setattr(pace, "SLICE_BYTES", draw.choice((300, 1000, 20000)))
                dump = asyncio.ensure_future(shard.persistence.dump(urgent=True))
                while not dump.done():
                    if draw.random() < 0.5:
                        shard.execute(*command(draw))
                    await asyncio.sleep(0)
                dump.result()
                for _ in range(draw.randrange(30)):
                    shard.execute(*command(draw))
                await shard.durable()
                shard.same_as_on_disk()
                names = sorted(os.listdir(shard.directory))
                assert [name[7:] for name in names] == ["base", "log", "t"], names
                base = shard.directory / names[0]
                assert base.stat().st_blocks * 512 <= base.stat().st_size + 8192, "what was reserved is given back"
            shard.shard.store.check()

    run(test)


GOLDEN = Path(__file__).parents[2] / "data" / "log-format-1"
GOLDEN_COMMANDS: list[list[object]] = [
    ["SET", "text", b"with spaces: colons\n\x00\xff"],
    ["SET", "", "the empty key"],
    ["SET", "\N{SNOWMAN}", "v", "PXAT", NOW + 86_400_000],
    ["APPEND", "raw", "a"], ["APPEND", "raw", "b"], ["SETRANGE", "raw", 5, "x"],
    ["RPUSH", "list", "a", "b", "c", ""], ["LSET", "list", 1, "B"], ["LINSERT", "list", "AFTER", "B", "b"],
    ["LPOP", "list"], ["LREM", "list", 0, "c"],
    ["HSET", "hash", "f", "v", "g", "w", "h", "x"], ["HDEL", "hash", "g"],
    ["HPEXPIREAT", "hash", NOW + 86_400_000, "FIELDS", 1, "h"],
    ["SADD", "set", "1", "2", "x"], ["SREM", "set", "2"],
    ["ZADD", "zset", "1.5", "a", "-inf", "b", "-0.0", "c"], ["ZREM", "zset", "a"],
    ["RENAME", "set", "{set}2"], ["COPY", "list", "list2", "DB", 1], ["MOVE", "zset", 1], ["DEL", "text2"],
    ["SWAPDB", 0, 2], ["SWAPDB", 0, 2],
]  # fmt: skip


def large() -> list[list[object]]:
    """What comes in parts."""
    return [
        ["RPUSH", "large:list", *range(2500)], ["SADD", "large:set", *range(2500)],
        ["ZADD", "large:zset", *(word for n in range(2500) for word in (n % 7, n))],
        ["HSET", "large:hash", *(word for n in range(2500) for word in (n, n % 7))],
    ]  # fmt: skip


def test_files_of_version_1_are_read_for_ever(tmp_path: Path) -> None:
    """The directory was written by `write_golden` when the format was fixed: before, in and behind a base."""
    shard = Shard(now_ms=NOW)
    for words in [*GOLDEN_COMMANDS, *large(), *GOLDEN_COMMANDS]:
        shard.execute([word if isinstance(word, bytes) else str(word).encode() for word in words])
    assert state(recovered(GOLDEN, NOW)) == state(shard.store)


def write_golden(directory: Path) -> None:
    """Writes the files of the test above anew, for a new major version beside those of the old ones."""

    async def test() -> None:
        async with kept(directory) as shard:
            shard.reactor = None  # type: ignore[assignment]  # nobody waits for replies
            for words in [*GOLDEN_COMMANDS, *large()]:
                shard.execute(*words)
            await shard.persistence.dump()
            for words in GOLDEN_COMMANDS:
                shard.execute(*words)
            await shard.durable()

    run(test)


def test_a_snapshot_without_a_log_is_as_of_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with kept(tmp_path / "shard", appendonly=False) as shard:
            for number in range(5000):
                shard.execute("SET", f"key{number}", "before")
            dump = asyncio.ensure_future(shard.persistence.dump())
            while not dump.done():
                if shard.persistence.writer is not None:
                    shard.execute("SET", f"key{random.randrange(5000)}", "while")
                await asyncio.sleep(0)
            dump.result()
            assert shard.persistence.writer is None
            shard.same_as_on_disk()
            shard.execute("SET", "later", "is not kept")
            assert recovered(shard.directory, NOW).counts()[0][1] != 5001
            manifest = manifests.read(Files(), str(shard.directory))
            assert manifest is not None and manifest.stopped_ms

    run(test)


@pytest.mark.parametrize("reached", ["slices", "swap"])
def test_a_dump_under_way_does_not_take_the_place_of_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    """The shard leaves while it dumps, a moment after a command."""
    monkeypatch.setattr(pace, "SLICE_NS", 1)

    async def test() -> None:
        async with kept(tmp_path / "shard", appendonly=False) as shard:
            for number in range(3000):
                shard.execute("SET", f"key{number}", "before")
            dump = asyncio.ensure_future(shard.persistence.dump())
            swapping = asyncio.Event()
            swap = shard.persistence._swap

            async def seen(*arguments: Any) -> None:
                swapping.set()
                await swap(*arguments)

            monkeypatch.setattr(shard.persistence, "_swap", seen)
            while shard.persistence.dump_running is None or (reached == "swap" and not swapping.is_set()):
                await asyncio.sleep(0)
            shard.execute("SET", "last", "command")
            await shard.persistence.close(save=True)
            await asyncio.wait([dump])
            if not dump.cancelled():
                dump.exception()  # it was given up, or just made it: both are fine
            shard.same_as_on_disk()

    run(test)


def test_appendonly_yes_and_no_while_it_runs(tmp_path: Path) -> None:
    """OK means that everything is found, what was there before included."""

    async def test() -> None:
        async with kept(tmp_path / "shard", appendonly=False) as shard:
            shard.execute("SET", "old", "value")
            await shard.persistence.apply(Config(appendonly=True, appendfsync="always"))
            shard.same_as_on_disk()
            shard.execute("SET", "new", "value")
            await shard.durable()
            shard.same_as_on_disk()
            await shard.persistence.apply(Config(appendonly=False))
            shard.same_as_on_disk()
            shard.execute("SET", "lost", "value")
            assert recovered(shard.directory, NOW).counts()[0][1] == 2

    run(test)


@pytest.mark.parametrize("busy", [True, False])
def test_a_dump_rests_while_there_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    """Of the time of a busy shard a sixteenth is its own; of an idle one all."""
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(pace, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(pace, "MOST_UNWRITTEN", 1 << 40)  # the disk is not behind

    async def test() -> None:
        async with kept(tmp_path / "shard") as shard:
            for number in range(5000):
                shard.execute("SET", f"key{number}", "v" * 1000)
            rests.clear()
            dump = asyncio.ensure_future(shard.persistence.dump())
            seen = None
            while not dump.done():
                seen = shard.persistence.dump_running or seen
                if busy:
                    shard.execute("SET", "key", "while")
                await asyncio.sleep(0)
            dump.result()
            assert seen is not None and seen.slices > 4
            if busy:
                # All but the first slice have seen a command before them.
                assert sum(rests) > pace.BUSY_REST * seen.cpu_ns / 1e9 / 2
            else:
                assert sum(rests) == 0

    run(test)


def test_a_log_begins_when_there_is_room_and_nothing_is_missing_from_it(tmp_path: Path) -> None:
    """A shard that comes back on a full disk serves, refuses writes, and tells its first log what went by itself meanwhile."""
    files = ScriptedFiles()
    due = int(time.time() * 1000) + 3_600_000

    async def test() -> None:
        def load(shard: Kept) -> None:
            shard.execute("SET", "key", "value")
            shard.execute("HSET", "hash", "field", "value")
            shard.execute("HPEXPIREAT", "hash", due, "FIELDS", 1, "field")

        async with kept(tmp_path / "shard") as shard:
            load(shard)
            await shard.durable()
            assert shard.persistence.writer is not None
            sequence = shard.persistence.writer.sequence
        manifest = manifests.read(Files(), str(shard.directory))
        again = Kept(shard.directory, files)
        try:
            load(again)
            files.fail("pwrite", errno.ENOSPC, times=-1)
            await again.persistence.begin(manifest, sequence)
            assert again.execute("SET", "key", "other").startswith(
                b"-MISCONF Errors writing to the AOF file: No space left"
            )
            assert again.execute("GET", "key") == b"$5\r\nvalue\r\n"
            with pytest.raises(DumpError, match="No space left"):
                await again.persistence.dump()
            assert again.persistence.figures()["state"] == "full"
            again.shard.set_time(due + 1)
            assert again.execute("HLEN", "hash") == b":0\r\n"
            files.heal()
            while again.persistence.figures()["state"] != "ok":
                await asyncio.sleep(0.01)
            assert again.execute("RPUSH", "hash", "is a list by now") == b":1\r\n"
            await again.durable()
            again.same_as_on_disk()
        finally:
            await again.persistence.close()
            again.reactor.close()
            again.cleanup.stop()

    run(test)


def test_appendonly_no_lets_go_on_without_room(tmp_path: Path) -> None:
    """And back: OK means again that everything is found."""
    files = ScriptedFiles()
    files.fail("pwrite", errno.ENOSPC, times=-1)

    async def test() -> None:
        async with kept(tmp_path / "shard", files) as shard:
            assert shard.execute("SET", "key", "value").startswith(b"-MISCONF")
            await shard.persistence.apply(Config(appendonly=True, maxmemory=1 << 30))
            assert shard.execute("SET", "key", "value").startswith(b"-MISCONF")
            await shard.persistence.apply(Config(appendonly=False))
            assert shard.execute("SET", "key", "value") == b"+OK\r\n"
            with pytest.raises(DumpError, match="No space left"):
                await shard.persistence.apply(Config(appendonly=True))
            assert shard.execute("SET", "key", "value") == b"+OK\r\n"
            files.heal()
            await shard.persistence.apply(Config(appendonly=True))
            shard.same_as_on_disk()

    run(test)


def test_a_second_dump_is_refused_and_one_can_be_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with kept(tmp_path / "shard") as shard:
            for number in range(3000):
                shard.execute("SET", f"key{number}", "v" * 100)
            dump = asyncio.ensure_future(shard.persistence.dump())
            while shard.persistence.dump_running is None:
                await asyncio.sleep(0)
            with pytest.raises(DumpError, match="in progress"):
                await shard.persistence.dump()
            shard.persistence.cancel()
            with pytest.raises(DumpError, match="given up"):
                await dump
            assert not list(shard.directory.glob("*.base"))
            shard.execute("SET", "after", "it")
            await shard.durable()
            shard.same_as_on_disk()
            await shard.persistence.dump()
            shard.same_as_on_disk()

    run(test)


@pytest.mark.parametrize("what", ["*.base", "*.log", "*"])
@pytest.mark.parametrize("logs", [True, False])
def test_a_dump_whose_files_are_removed_has_failed(tmp_path: Path, what: str, logs: bool) -> None:
    """They are written to their end by whoever has them open, and are nowhere."""

    async def test() -> None:
        place = tmp_path / "shard"
        async with kept(place, appendonly=logs) as shard:
            for number in range(3000):
                shard.execute("SET", f"key{number}", "v" * 100)
            changes = shard.persistence.figures()["changes_since_save"]
            dump = asyncio.ensure_future(shard.persistence.dump())
            while shard.persistence.dump_running is None or not list(place.glob("*.base")):
                await asyncio.sleep(0)
            for path in place.glob(what):
                path.unlink()
            with pytest.raises(DumpError, match=f"{place}/.* is not there any more: somebody has removed or moved it"):
                await dump
            figures = shard.persistence.figures()
            assert figures["last_dump_ok"] == 0 and str(place) in str(figures["last_error"])
            assert figures["changes_since_save"] == changes
            await shard.persistence.dump()
            assert shard.persistence.figures()["last_dump_ok"] == 1
            shard.same_as_on_disk()

    run(test)


@pytest.mark.parametrize("logs", [True, False])
def test_a_dump_without_its_directory_names_it(tmp_path: Path, logs: bool) -> None:
    async def test() -> None:
        place = tmp_path / "shard"
        async with kept(place, appendonly=logs) as shard:
            shard.execute("SET", "key", "v")
            place.rename(tmp_path / "elsewhere")
            with pytest.raises(DumpError, match=f"^{place} cannot be used: {place}/0.*log: No such file or directory"):
                await shard.persistence.dump()
            with pytest.raises(DumpError, match=f"^{place}[ /]"):
                await shard.persistence.settle(not logs)
            (tmp_path / "elsewhere").rename(place)
            await shard.persistence.settle(not logs)
            shard.same_as_on_disk()

    run(test)


def test_settling_a_broken_log_repairs_it(tmp_path: Path) -> None:
    """Whoever has mended the disk need not wait for the next try."""

    async def test() -> None:
        files = ScriptedFiles()
        async with kept(tmp_path / "shard", files, appendfsync="everysec") as shard:
            files.fail("fdatasync", errno.EIO, times=1000)  # before there is anything that may be synced already
            shard.execute("SET", "key", "v")
            shard.host.commit()
            with pytest.raises(DumpError, match="Input/output error"):
                await shard.persistence.settle(False)
            while not shard.persistence.repairing:
                await asyncio.sleep(0.01)
            with pytest.raises(DumpError, match="Input/output error"):
                await shard.persistence.settle(False)
            files.heal()
            await shard.persistence.settle(False)
            assert not shard.persistence.repairing
            shard.same_as_on_disk()

    run(test)


def test_a_snapshot_whose_own_log_finds_no_room_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        files = ScriptedFiles()
        async with kept(tmp_path / "shard", files, appendonly=False) as shard:
            for number in range(3000):
                shard.execute("SET", f"key{number}", "v" * 100)
            files.fail("fallocate", errno.ENOSPC)  # the log is the first that reserves room
            with pytest.raises(DumpError, match=f"^{tmp_path}/shard: fallocate: No space left on device"):
                await shard.persistence.dump()
            figures = shard.persistence.figures()
            assert figures["last_dump_ok"] == 0 and "No space left on device" in str(figures["last_error"])
            await shard.persistence.dump()
            shard.same_as_on_disk()

    run(test)


def test_a_log_that_no_start_would_find_is_not_begun(tmp_path: Path) -> None:
    """What is refused once is not OK the second time."""

    async def test() -> None:
        place, needed = tmp_path / "shard", tmp_path / "cluster"
        async with kept(place, appendonly=False) as shard:
            shard.persistence.needed = (str(needed),)
            shard.execute("SET", "key", "v")
            before = sorted(place.iterdir())
            for _ in range(2):
                with pytest.raises(DumpError, match=f"^{needed} is not there any more"):
                    await shard.persistence.apply(Config(appendonly=True))
                assert not shard.persistence.logging and sorted(place.iterdir()) == before
            needed.touch()
            await shard.persistence.apply(Config(appendonly=True))
            assert shard.persistence.logging

    run(test)


def test_whoever_begins_a_dump_meanwhile_does_not_hold_the_last_one_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with kept(tmp_path / "shard", appendonly=False) as shard:
            for number in range(3000):
                shard.execute("SET", f"key{number}", "v" * 100)

            async def again() -> None:
                with pytest.raises(DumpError, match="given up"):
                    await shard.persistence.dump()
                with pytest.raises(DumpError):
                    await shard.persistence.dump()

            other = asyncio.ensure_future(again())
            while shard.persistence.dump_running is None:
                await asyncio.sleep(0)
            await shard.persistence.settle(True)
            await other
            shard.same_as_on_disk()

    run(test)
