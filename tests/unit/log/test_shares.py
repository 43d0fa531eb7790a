"""A transaction over shards in the log of one of them: its share is one frame, and a record says when its locks have ended."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_replies_wait import Router, Served, internal, run, run_of, served

from kache.shard.engine.engine import records_of
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log import persistence
from kache.shard.log.files import Files
from kache.shard.log.persistence import Identity
from kache.shard.log.recovery import FrameFile, shares_of
from kache.slots import slot_of_key
from kache.wire import link as wire_link

BOTH = struct.pack("<HH", 0, 1)
FIRST = 7
"""Number of the transaction."""


def share(*commands: tuple[str, ...], flags: int = 0, rest: int = 0, number: int = FIRST) -> bytes:
    """Commands as a run of the transaction's share; `rest` bytes of it follow."""
    made = bytearray(run_of(*commands))
    made[7] = wire_link.ATOMIC | flags
    made[20:36] = struct.pack("<QQ", rest, number)
    return bytes(made)


def lock(
    served: Served, *keys: str, shards: bytes = BOTH, hold: int = 60_000, number: int = FIRST, mode: int = 0
) -> bytes:
    slots = b"".join(struct.pack("<H", slot_of_key(key.encode())) for key in keys)
    until = served.shard.store.now_ms + hold
    words = [struct.pack("<Q", number), struct.pack("<q", until), bytes([mode]), slots]
    return internal("_lock", *words, *[shards] * bool(shards))


def commit() -> bytes:
    """The last step is done; a step itself, of one internal command."""
    made = bytearray(internal("_commit", struct.pack("<Q", FIRST), BOTH))
    made[7] = wire_link.ATOMIC
    made[20:36] = struct.pack("<QQ", 0, FIRST)
    return bytes(made)


def unlock(number: int = FIRST) -> bytes:
    return internal("_unlock", struct.pack("<Q", number))


async def send(router: Router, *parts: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(router.sock, b"".join(parts))


def frames(directory: Path) -> list[tuple[int, list[str]]]:
    """(kind, names of its records) of each frame of the first log but marks; of a share also what its head says."""
    file = FrameFile(Files(), str(directory / "000001.log"))
    found: list[tuple[int, list[str]]] = []
    for _, kind, _, _, now_ms, payload in file.frames():
        if kind not in (log_format.EFFECTS, log_format.SHARE):
            continue
        head: list[str] = []
        if kind == log_format.SHARE:
            shards = payload[2 : 2 + payload[1]]
            head, payload = [f"{payload[0]} of {list(shards)}"], payload[2 + payload[1] :]
        found.append((kind, head + [name for name, *_ in records_of(now_ms, payload)]))
    file.close()
    return found


async def until_frames(directory: Path, expected: list[tuple[int, list[str]]]) -> None:
    for _ in range(1000):
        if frames(directory) == expected:
            return
        await asyncio.sleep(0.005)
    assert frames(directory) == expected


def unsettled(directory: Path) -> list[int]:
    found = manifests.read(Files(), str(directory))
    assert found is not None
    return [each.transaction for each in shares_of(Files(), str(directory), found).shares if not each.settled]


@asynccontextmanager
async def locked(directory: Path, **how: Any) -> AsyncIterator[tuple[Served, Router]]:
    """A shard with a log, and a router whose transaction holds `a`."""
    async with served(directory, appendfsync="no") as made:
        router = await made.router()
        await send(router, lock(made, "a", **how))
        assert await router.replies(1) == [b":1\r\n"]
        yield made, router


def test_a_share_is_a_frame_of_its_own_with_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with locked(tmp_path) as (_, router):
            second = share(("incr", "a"), flags=wire_link.RELEASE)
            whole = share(("set", "a", "1"), ("get", "a"), rest=len(second)) + second
            await send(router, run_of(("set", "before", "1")), whole, run_of(("set", "behind", "1")))
            assert await router.replies(5) == [b"+OK\r\n", b"+OK\r\n", b"$1\r\n1\r\n", b":2\r\n", b"+OK\r\n"]
            await until_frames(tmp_path, [
                (log_format.EFFECTS, ["string_set"]),
                (log_format.SHARE, ["7 of [0, 1]", "string_set", "string_set", "settled"]),
                (log_format.EFFECTS, ["string_set"]),
            ])  # fmt: skip
        assert unsettled(tmp_path) == []

    run(test)


def test_locks_that_go_on_are_noted_when_they_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with locked(tmp_path) as (made, router):
            await send(router, share(("set", "a", "1")))
            assert await router.replies(1) == [b"+OK\r\n"]
            await until_frames(tmp_path, [(log_format.SHARE, ["7 of [0, 1]", "string_set"])])
            assert unsettled(tmp_path) == [FIRST] and made.shard.locks.open_shares == {FIRST}
            await send(router, unlock())
            assert await router.replies(1) == [b":1\r\n"]
            await until_frames(tmp_path, [
                (log_format.SHARE, ["7 of [0, 1]", "string_set"]), (log_format.EFFECTS, ["settled"]),
            ])  # fmt: skip
        assert unsettled(tmp_path) == []

    run(test)


def test_a_share_without_an_effect_is_a_frame_too(tmp_path: Path) -> None:
    """Else it would look lost. What no other shard has a share of is like any other change."""

    async def test() -> None:
        async with locked(tmp_path) as (made, router):
            await send(router, share(("del", "a"), flags=wire_link.RELEASE))
            assert await router.replies(1) == [b":0\r\n"]
            await until_frames(tmp_path, [(log_format.SHARE, ["7 of [0, 1]", "settled"])])
            await send(router, lock(made, "a", shards=b""), share(("set", "a", "1"), flags=wire_link.RELEASE))
            assert await router.replies(2) == [b":1\r\n", b"+OK\r\n"]
            await until_frames(tmp_path, [
                (log_format.SHARE, ["7 of [0, 1]", "settled"]), (log_format.EFFECTS, ["string_set"]),
            ])  # fmt: skip

    run(test)


@pytest.mark.parametrize("link_goes", [False, True])
def test_a_lock_in_the_log_ends_by_time_also_when_its_router_is_gone(tmp_path: Path, link_goes: bool) -> None:
    """A router that is killed with everything must not be what settles half a transaction."""

    async def test() -> None:
        async with locked(tmp_path, hold=700) as (made, router):
            other = await made.router()
            await send(router, share(("set", "a", "1")))
            assert await router.replies(1) == [b"+OK\r\n"]
            if link_goes:
                router.sock.close()
                await made.until(lambda: len(made.host.links) == 1)
                assert made.shard.locks.busy and unsettled(tmp_path) == [FIRST]
            await send(other, run_of(("get", "a")))
            await made.until(lambda: not made.shard.locks.busy)
            await until_frames(tmp_path, [
                (log_format.SHARE, ["7 of [0, 1]", "string_set"]), (log_format.EFFECTS, ["settled"]),
            ])  # fmt: skip

    run(test)


def test_locks_without_a_share_yet_end_with_their_link_and_leave_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with locked(tmp_path) as (made, router):
            router.sock.close()
            await made.until(lambda: not made.shard.locks.busy)
            other = await made.router()
            assert await other.ask("set", "a", "1") == b"+OK\r\n"
            await until_frames(tmp_path, [(log_format.EFFECTS, ["string_set"])])

    run(test)


def test_a_base_waits_for_the_end_of_shares(tmp_path: Path) -> None:
    """It hides the log before it, with what that says of a transaction which another shard may have lost."""

    async def test() -> None:
        async with locked(tmp_path) as (made, router):
            await send(router, share(("set", "a", "1")))
            assert await router.replies(1) == [b"+OK\r\n"]
            dump = asyncio.get_running_loop().create_task(made.persistence.dump())
            await made.until(lambda: made.persistence.dump_running is not None and made.persistence.dump_running.done)
            done, _ = await asyncio.wait([dump], timeout=0.3)
            assert not done and made.persistence.manifest.bases == ()
            await send(router, unlock())
            await dump
            assert len(made.persistence.manifest.bases) == 1

    run(test)


STEPS = {"shards": b"", "mode": wire_link.STEPS}


def test_steps_are_frames_of_their_own_and_nothing_of_others_is_in_them(tmp_path: Path) -> None:
    """A step that reads is none. What others write between two steps, in one tick, is not left out with them."""

    async def test() -> None:
        async with locked(tmp_path, **STEPS) as (made, router):
            steps = [share(("get", "a")), share(("set", "a", "1")), share(("del", "none")), share(("append", "a", "2"))]
            between = [run_of(("set", name, "1")) for name in ("x", "y", "z")]
            await send(router, steps[0], between[0], steps[1], between[1], steps[2], between[2], steps[3], commit())
            assert (await router.replies(8))[-2:] == [b":2\r\n", b"+OK\r\n"]
            assert made.shard.locks.open_shares == {FIRST} and unsettled(tmp_path) == [FIRST] * 3
            await send(router, unlock())
            assert await router.replies(1) == [b":1\r\n"]
            await until_frames(tmp_path, [
                (log_format.EFFECTS, ["string_set"]),
                (log_format.SHARE, ["7 of []", "string_set"]),
                (log_format.EFFECTS, ["string_set"]),
                (log_format.EFFECTS, ["string_set"]),
                (log_format.SHARE, ["7 of []", "string_append"]),
                (log_format.SHARE, ["7 of [0, 1]"]),
                (log_format.EFFECTS, ["settled"]),
            ])  # fmt: skip
        assert unsettled(tmp_path) == []

    run(test)


def test_a_commit_behind_the_end_of_its_lock_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with locked(tmp_path, **STEPS) as (_, router):
            await send(router, share(("set", "a", "1")), unlock(), internal("_commit", struct.pack("<Q", FIRST), BOTH))
            found = await router.replies(3)
            assert found[:2] == [b"+OK\r\n", b":1\r\n"] and found[2].startswith(b"-TRYAGAIN")
            await until_frames(
                tmp_path, [(log_format.SHARE, ["7 of []", "string_set"]), (log_format.EFFECTS, ["settled"])]
            )

    run(test)


@pytest.mark.parametrize(
    ("policy", "shards", "waits"), [("everysec", 2, True), ("everysec", 1, False), ("always", 2, False)]
)
def test_a_base_waits_until_others_cannot_lose_their_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, shards: int, waits: bool
) -> None:
    """It hides the share here, so that nobody could leave that out any more when the power takes the rest elsewhere."""
    monkeypatch.setattr(persistence, "LOSS_MS", 700)

    async def test() -> None:
        async with served(tmp_path, appendfsync=policy) as made:
            made.persistence.identity = Identity(b"cluster of tests", 0, shards, bytes(16))
            router = await made.router()
            await send(router, lock(made, "a"), share(("set", "a", "1"), flags=wire_link.RELEASE))
            assert await router.replies(2) == [b":1\r\n", b"+OK\r\n"]
            began = time.monotonic()
            await made.persistence.dump()
            assert (time.monotonic() - began > 0.5) == waits
            assert len(made.persistence.manifest.bases) == 1

    run(test)


def test_a_log_with_a_base_tells_what_was_before_it(tmp_path: Path) -> None:
    """7 is over, 8 has its share in the log that the base replaces, 9 has begun and has not."""

    async def test() -> None:
        async with locked(tmp_path) as (made, router):
            made.persistence.identity = Identity(b"cluster of tests", 0, 2, bytes(16), Files().boot())
            await send(router, share(("set", "a", "1"), flags=wire_link.RELEASE), lock(made, "b", number=8))
            await send(router, share(("set", "b", "1"), number=8), lock(made, "c", number=9, **STEPS))
            await send(router, share(("set", "c", "1"), number=9))
            assert await router.replies(5) == [b"+OK\r\n", b":1\r\n", b"+OK\r\n", b":1\r\n", b"+OK\r\n"]
            dump = asyncio.get_running_loop().create_task(made.persistence.dump())
            await made.until(lambda: made.persistence.dump_running is not None and made.persistence.dump_running.done)
            await send(router, unlock(8), unlock(9))
            await dump
            found = manifests.read(Files(), str(tmp_path))
            assert found is not None and len(found.logs) == 1
            told = shares_of(Files(), str(tmp_path), found)
            assert (told.before, told.missing, told.shares) == ({7, 8}, {9}, ())
            assert 0 < told.base_ms <= made.shard.store.now_ms and told.survived

    run(test)


def test_what_was_left_open_is_over_after_a_start(tmp_path: Path) -> None:
    """What was built on it since must not be built on nothing by a later decision."""

    async def test() -> None:
        async with served(tmp_path) as made:
            made.persistence.identity = Identity(b"cluster of tests", 0, 2, bytes(16), Files().boot())
            made.host.settle([70, 71])
            await until_frames(tmp_path, [(log_format.EFFECTS, ["settled", "settled"])])
            # A base hides that from another shard, which may hold its locks still and have a step that nobody else speaks for.
            for _ in range(2):
                await made.persistence.dump()
                found = manifests.read(Files(), str(tmp_path))
                assert found is not None and shares_of(Files(), str(tmp_path), found).before >= {70, 71}

    run(test)
