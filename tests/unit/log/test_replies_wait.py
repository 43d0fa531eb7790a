"""No reply leaves before what made it is kept: marks on links, policies, and what happens when the disk does not answer."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from log_files import written

from kache.commands import BY_KEY, DIGEST
from kache.config.settings import Config
from kache.shard.engine.engine import Host, ShardReactor
from kache.shard.log.files import ScriptedFiles
from kache.shard.log.persistence import Identity, Persistence
from kache.shard.shard import Shard
from kache.slots import slot_of_key
from kache.wire import link as wire_link
from kache.wire.clock import Clock

HELLO = struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 0, DIGEST, 1, 0)
INTERNAL, RESP2 = 1, 2


def run_of(*commands: tuple[str, ...], session: int = 9) -> bytes:
    frames = b""
    for name, *words in commands:
        args = [word.encode() for word in words]
        slot = slot_of_key(args[0]) if args else 0xFFFF
        body = struct.pack("<HHI", BY_KEY[name].id, slot, len(args))
        body += b"".join(struct.pack("<I", len(arg)) + arg for arg in args)
        frames += struct.pack("<I", len(body)) + body
    header = struct.pack("<BBBBIQQQI", wire_link.RUN, RESP2, 0, 0, len(commands), session, 0, 0, 1)
    return struct.pack("<I", len(header) + len(frames)) + header + frames


def internal(name: str, *words: bytes) -> bytes:
    """A run of one internal command."""
    body = struct.pack("<HHI", BY_KEY[name].id, 0xFFFF, len(words))
    body += b"".join(struct.pack("<I", len(word)) + word for word in words)
    frame = struct.pack("<I", len(body)) + body
    header = struct.pack("<BBBBIQQQI", wire_link.RUN, INTERNAL, 0, 0, 1, 9, 0, 0, 1)
    return struct.pack("<I", len(header) + len(frame)) + header + frame


async def asked(router: Any, run: bytes) -> bytes:
    """The reply of a run of one frame."""
    await asyncio.get_running_loop().sock_sendall(router.sock, run)
    [reply] = await router.replies(1)
    return bytes(reply)


def slot(key: str) -> bytes:
    return struct.pack("<H", slot_of_key(key.encode()))


def lock_of(key: str, number: int) -> bytes:
    """A lock of the key's slot for a minute, of a transaction that logs nothing."""
    until = struct.pack("<q", Clock().now() + 60_000)
    return internal("_lock", struct.pack("<Q", number), until, b"\0", slot(key))


class Router:
    """A router's end of a link."""

    def __init__(self, host: Host) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        host.accept(theirs.detach())
        self.data = bytearray()
        self.closed = False
        self.came: list[bytes | int] = []
        """Replies in their order; of one that was parked its token so far."""

    async def send(self, *commands: tuple[str, ...], session: int = 9) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, run_of(*commands, session=session))

    def take(self, message: bytes) -> None:
        """One message of the shard."""
        if message[0] == wire_link.DEFERRED:
            self.came[self.came.index(int.from_bytes(message[8:16], "little"))] = message[16:]
        if message[0] != wire_link.REPLY:
            return
        at = 16
        for _ in range(int.from_bytes(message[4:8], "little")):
            size = int.from_bytes(message[at : at + 4], "little")
            if size == wire_link.PARKED_REPLY:
                self.came.append(int.from_bytes(message[at + 4 : at + 12], "little"))
                size = 8
            else:
                self.came.append(message[at + 4 : at + 4 + size])
            at += 4 + size

    async def replies(self, count: int, seconds: float = 20) -> list[bytes]:
        """So many, or those that came in that time or before the end."""
        found: list[bytes] = []
        until = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < until:
            while len(self.data) >= 4 and len(self.data) >= 4 + int.from_bytes(self.data[:4], "little"):
                message = bytes(self.data[4 : 4 + int.from_bytes(self.data[:4], "little")])
                del self.data[: 4 + len(message)]
                self.take(message)
            while self.came and isinstance(self.came[0], bytes) and len(found) < count:
                found.append(self.came.pop(0))  # type: ignore[arg-type]  # it is one: the line above
            if len(found) >= count or self.closed:
                break
            try:
                data = await asyncio.wait_for(
                    asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), max(until - time.monotonic(), 0.001)
                )
            except TimeoutError:
                break
            self.closed = not data
            self.data += data
        return found

    async def ask(self, *words: str) -> bytes:
        await self.send(words)
        found = await self.replies(1)
        return found[0] if found else b"closed"


class Served:
    """A shard with a log, and the files under it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.files = ScriptedFiles()
        self.shard = Shard(now_ms=Clock().now())
        self.reactor = ShardReactor(asyncio.get_running_loop())
        self.host = Host(self.shard, self.reactor, DIGEST, 1, 2)
        config = Config(**{"appendonly": True, "appendfsync": "always", "log_stall_ms": 1500, **settings})
        identity = Identity(b"cluster of tests", 0, 1, bytes(16))
        self.persistence = Persistence(self.host, self.files, str(directory), identity, Clock().now, config)

    async def router(self) -> Router:
        made = Router(self.host)
        await asyncio.get_running_loop().sock_sendall(made.sock, HELLO)
        assert await made.ask("exists", "nothing") == b":0\r\n"
        return made

    async def until(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < deadline, self.persistence.figures()
            await asyncio.sleep(0.005)

    def state(self) -> object:
        return self.persistence.figures()["state"]


@asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[Served]:
    directory.mkdir(exist_ok=True)
    made = Served(directory, **settings)
    await made.persistence.begin(None, 0)
    try:
        yield made
    finally:
        made.files.heal()
        await made.persistence.close()
        made.reactor.close()


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def test_always_no_reply_before_the_sync_and_reads_wait_with_the_others(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", log_stall_ms=10_000) as here:
            one, other = await here.router(), await here.router()
            here.files.slow("fdatasync", 2.0)
            began = time.monotonic()
            await one.send(("set", "k", "v"), ("get", "k"))
            assert await one.replies(1, 0.2) == []
            await other.send(("get", "k"))
            assert await other.replies(1, 0.1) == [], "nobody sees what could be lost"
            assert await one.replies(2) == [b"+OK\r\n", b"$1\r\nv\r\n"]
            assert time.monotonic() - began >= 2
            assert await other.replies(1) == [b"$1\r\nv\r\n"]
            assert here.persistence.writer is not None and here.persistence.writer.durable == 1

    run(test)


def test_always_the_loop_goes_on_and_shares_syncs(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", log_stall_ms=10_000) as here:
            routers = [await here.router() for _ in range(8)]
            here.files.forget()
            here.files.slow("fdatasync", 0.02, times=-1)
            for number in range(20):
                for at, router in enumerate(routers):
                    await router.send(("set", f"k{at}", f"{number}"))
            for router in routers:
                assert await router.replies(20) == [b"+OK\r\n"] * 20
            syncs = sum(each[0] == "fdatasync" for each in here.files.record)
            assert syncs < 100, f"{syncs} syncs for 160 writes of 8 clients"

    run(test)


@pytest.mark.parametrize("appendfsync", ["everysec", "no"])
def test_everysec_replies_when_it_is_written(tmp_path: Path, appendfsync: str) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", appendfsync=appendfsync) as here:
            router = await here.router()
            here.files.fail("fdatasync", errno.EIO, after=10**6)
            for number in range(50):
                assert await router.ask("set", "k", f"{number}") == b"+OK\r\n"
                assert any(b"k" + bytes([2 if number > 9 else 1]) + b"%d" % number in each[4] for each in here.files.record
                           if each[0] == "pwrite")  # fmt: skip
            here.files.slow("pwrite", 0.4, times=1)
            await router.send(("set", "k", "slow"))
            await router.send(("get", "k"))
            assert await router.replies(2) == [b"+OK\r\n", b"$4\r\nslow\r\n"]

    run(test)


@pytest.mark.parametrize("appendfsync", ["everysec", "no"])
def test_a_write_of_the_loop_that_is_cut_short_is_gone_on_with(tmp_path: Path, appendfsync: str) -> None:
    """Wherever the disk stops in a frame, its reply waits for the rest, and the file has every frame once, in order."""
    size = 40 + 24

    async def test() -> None:
        async with served(tmp_path / "s", appendfsync=appendfsync) as here:
            router, writer = await here.router(), here.persistence.writer
            assert writer is not None and await router.ask("set", "k", "first") == b"+OK\r\n"
            # From one byte on: a write of none by the thread, whose turn it is behind a slow one, means a full disk.
            for number in range(1, size):
                before = writer.figures()
                here.files.shorten("pwrite", number)
                assert await router.ask("set", "k", f"{number:020}") == b"+OK\r\n"
                assert writer.queued == 0 and writer.written == writer.sequence == number + 1
                if appendfsync == "no":
                    assert writer.figures()["written_by_thread"] == before["written_by_thread"] + 1
                    assert await router.ask("get", "k") == b"$20\r\n%020d\r\n" % number
            data = written(next((tmp_path / "s").glob("*.log")))
        at, found = 128, []
        while data[at : at + 2] == b"FK":
            end = at + 40 + int.from_bytes(data[at + 4 : at + 8], "little")
            if data[at + 2] == 1:
                found.append((int.from_bytes(data[at + 8 : at + 16], "little"), data[at + 40 : end]))
            at = end
        assert at == len(data) and found[0] == (1, b"\x08\x01k\x05first")
        assert found[1:] == [(number + 1, b"\x08\x01k\x14%020d" % number) for number in range(1, size)]

    run(test)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_a_disk_that_stands_still(tmp_path: Path, appendfsync: str) -> None:
    """Writes are refused, who waits is closed, reads go on; when the call returns everything is as before."""

    async def test() -> None:
        async with served(tmp_path / "s", appendfsync=appendfsync, log_stall_ms=300) as here:
            waiting, reading = await here.router(), await here.router()
            assert await reading.ask("set", "old", "value") == b"+OK\r\n"
            if appendfsync == "everysec":
                # After a slow write the next one is the thread's. All are slow: one may be a mark that everything is durable.
                here.files.slow("pwrite", 0.01, times=-1)
                assert await reading.ask("set", "old", "value") == b"+OK\r\n"
                here.files.heal()
            here.files.slow("pwrite" if appendfsync == "everysec" else "fdatasync", 4.0, times=1)
            await waiting.send(("set", "new", "value"))
            await here.until(lambda: here.state() == "stalled")
            assert await waiting.replies(1) == [] and waiting.closed
            assert (await reading.ask("set", "k", "v")).startswith(
                b"-MISCONF Errors writing to the AOF file: no answer"
            )
            began = time.monotonic()
            assert await reading.ask("get", "old") == b"$5\r\nvalue\r\n"
            assert time.monotonic() - began < 2
            answer = await reading.ask("get", "new")
            assert answer.startswith(b"-TRYAGAIN") if appendfsync == "always" else answer == b"$5\r\nvalue\r\n"
            await here.until(lambda: here.state() == "ok")
            assert await reading.ask("set", "k", "v") == b"+OK\r\n"
            assert await reading.ask("get", "new") == b"$5\r\nvalue\r\n"

    run(test)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_a_full_disk_and_room_again(tmp_path: Path, appendfsync: str) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", appendfsync=appendfsync) as here:
            waiting, reading = await here.router(), await here.router()
            assert await reading.ask("set", "old", "value") == b"+OK\r\n"
            here.files.fail("fallocate", errno.ENOSPC, times=-1)
            here.files.fail("pwrite", errno.ENOSPC, times=-1)
            await waiting.send(("set", "new", "value"))
            await here.until(lambda: here.state() == "full")
            assert await waiting.replies(1) == [] and waiting.closed
            refused = await reading.ask("set", "k", "v")
            assert refused.startswith(b"-MISCONF Errors writing to the AOF file: No space left on device")
            assert await reading.ask("get", "old") == b"$5\r\nvalue\r\n"
            here.files.heal()
            await here.until(lambda: here.state() == "ok")
            assert await reading.ask("set", "k", "v") == b"+OK\r\n"

    run(test)


def test_a_broken_file_is_left_for_new_ones(tmp_path: Path) -> None:
    """The sync fails once: that file is never touched again, and everything is in new files before a write is accepted."""

    async def test() -> None:
        async with served(tmp_path / "s") as here:
            waiting, reading = await here.router(), await here.router()
            assert await reading.ask("set", "old", "value") == b"+OK\r\n"
            here.files.fail("fdatasync", errno.EIO)
            here.files.fail("open", errno.EIO, times=2)
            await waiting.send(("set", "new", "value"))
            await here.until(lambda: here.state() == "broken")
            assert await waiting.replies(1) == [] and waiting.closed
            assert (await reading.ask("set", "k", "v")).startswith(b"-MISCONF Errors writing to the AOF file: ")
            assert (await reading.ask("get", "new")).startswith(b"-TRYAGAIN")
            assert await reading.ask("get", "old") == b"$5\r\nvalue\r\n"
            await here.until(lambda: here.state() == "ok")
            assert await reading.ask("set", "k", "v") == b"+OK\r\n"
            assert await reading.ask("get", "new") == b"$5\r\nvalue\r\n"
            assert sorted(name[7:] for name in os.listdir(tmp_path / "s")) == ["base", "log", "t"]

    run(test)


@asynccontextmanager
async def slow(directory: Path) -> AsyncIterator[tuple[Served, Router]]:
    """A shard whose log lags behind for seconds, and a router."""
    async with served(directory, appendfsync="everysec", log_lag_ms=1000, log_stall_ms=20_000) as here:
        router = await here.router()
        here.files.slow("fdatasync", 4, times=1)
        assert await router.ask("set", "k", "v") == b"+OK\r\n"
        await here.until(lambda: here.state() == "slow")
        yield here, router


@pytest.mark.parametrize("most", [1000, 0])
def test_writes_wait_while_the_disk_is_slow_and_reads_do_not(tmp_path: Path, most: int) -> None:
    """One session waits behind its write; when `most` wait already it is the whole link that does."""

    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            other = await here.router()
            here.shard.locks.configure(most, 1 << 20)
            await router.send(("get", "k"), ("set", "k", "w"), ("get", "k"))
            assert await router.replies(3, 0.3) == [b"$1\r\nv\r\n"], "what stands before the write is answered"
            assert await other.ask("get", "k") == b"$1\r\nv\r\n"
            await router.send(("get", "unused"), session=10)
            assert here.shard.locks.waiting == (2 if most else 0)
            if most:
                assert await router.replies(1, 0.2) == []
                assert router.came[2:] == [b"$-1\r\n"], "another client of the same router reads"
            assert here.state() == "slow"
            await here.until(lambda: here.state() == "ok")
            assert await router.replies(3) == [b"+OK\r\n", b"$1\r\nw\r\n", b"$-1\r\n"]
            assert not here.shard.locks.waiting
            here.shard.locks.check()

    run(test)


def test_reads_pass_a_flush_that_waits_for_the_log(tmp_path: Path) -> None:
    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            other = await here.router()
            until = struct.pack("<q", Clock().now() + 60_000)
            words = [struct.pack("<Q", 7), until, bytes([wire_link.WAITS]), b"", struct.pack("<HH", 0, 1)]
            await asyncio.get_running_loop().sock_sendall(router.sock, internal("_lock", *words))
            await here.until(lambda: here.shard.locks.waiting == 1)
            assert await other.ask("get", "k") == b"$1\r\nv\r\n" and here.state() == "slow"
            assert await router.replies(1) == [b":1\r\n"] and here.state() == "ok"

    run(test)


def test_what_waits_for_the_log_too_long_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            soon = bytearray(run_of(("set", "k", "w")))
            soon[20:28] = struct.pack("<Q", Clock().now() + 100)
            await asyncio.get_running_loop().sock_sendall(router.sock, soon)
            assert (await router.replies(1))[0].startswith(b"-TRYAGAIN the log could not be written for too long")
            assert here.state() == "slow" and not here.shard.locks.waiting

    run(test)


def test_a_lock_says_that_it_waits_for_the_log(tmp_path: Path) -> None:
    """At once where it does not wait, and when its time is over where it does."""

    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            until = struct.pack("<q", Clock().now() + 60_000)
            words = [until, bytes([0]), slot("k"), struct.pack("<HH", 0, 1)]
            assert (
                await asked(router, internal("_lock", struct.pack("<Q", 7), *words))
                == b":%d\r\n" % wire_link.LOG_IS_SLOW
            )
            words[1] = bytes([wire_link.WAITS])
            soon = bytearray(internal("_lock", struct.pack("<Q", 8), *words))
            soon[20:28] = struct.pack("<Q", Clock().now() + 100)
            assert await asked(router, bytes(soon)) == b":%d\r\n" % wire_link.LOG_IS_SLOW
            assert here.state() == "slow" and not here.shard.locks.waiting

    run(test)


def test_an_atomic_run_that_waits_for_the_log_keeps_its_place(tmp_path: Path) -> None:
    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            other = await here.router()
            unit = bytearray(run_of(("set", "k", "unit"), ("get", "k")))
            unit[7] = wire_link.ATOMIC
            await asyncio.get_running_loop().sock_sendall(router.sock, unit)
            await here.until(lambda: here.shard.locks.waiting == 1)
            await asyncio.get_running_loop().sock_sendall(other.sock, lock_of("k", 7))
            assert await other.replies(1) == [b":0\r\n"], "it was first"
            assert await other.ask("get", "k") == b"$1\r\nv\r\n" and here.state() == "slow"
            assert await router.replies(2) == [b"+OK\r\n", b"$4\r\nunit\r\n"]
            assert here.state() == "ok"

    run(test)


def test_an_atomic_run_on_a_link_that_rests_respects_locks_taken_meanwhile(tmp_path: Path) -> None:
    """It was looked at before it had to wait: whoever locks its keys since must not see it come between."""

    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            other = await here.router()
            here.shard.locks.configure(0, 1 << 20)
            unit = bytearray(run_of(("set", "k", "unit"), ("get", "k")))
            unit[7] = wire_link.ATOMIC
            await asyncio.get_running_loop().sock_sendall(router.sock, unit)
            assert await router.replies(1, 0.2) == []
            here.shard.locks.configure(1000, 1 << 20)
            await asyncio.get_running_loop().sock_sendall(other.sock, lock_of("k", 7))
            assert await other.replies(1) == [b":1\r\n"]
            assert here.state() == "slow"
            await here.until(lambda: here.state() == "ok")
            assert await router.replies(1, 0.3) == [], "it came between"
            assert await other.ask("get", "unused") == b"$-1\r\n"
            await asyncio.get_running_loop().sock_sendall(other.sock, internal("_unlock", struct.pack("<Q", 7)))
            assert await other.replies(1) == [b":1\r\n"]
            assert await router.replies(2) == [b"+OK\r\n", b"$4\r\nunit\r\n"]

    run(test)


def test_a_transaction_that_writes_waits_for_the_log_before_it_begins(tmp_path: Path) -> None:
    """A lock that it would hold, and a share that nobody could refuse any more, come behind what waits already."""

    async def test() -> None:
        async with slow(tmp_path / "s") as (here, router):
            until = struct.pack("<q", Clock().now() + 60_000)
            words = [struct.pack("<Q", 7), until, bytes([wire_link.WAITS | wire_link.STEPS]), slot("k")]
            await asyncio.get_running_loop().sock_sendall(router.sock, internal("_lock", *words))
            assert await router.replies(1, 0.2) == [] and here.state() == "slow"
            await here.until(lambda: here.state() == "ok")
            assert await router.replies(1) == [b":1\r\n"]

    run(test)


def test_large_replies_in_pieces_are_sent_to_their_end(tmp_path: Path) -> None:
    """Pieces arise while the output is written: they must not wait for a tick that never comes."""

    async def test() -> None:
        async with served(tmp_path / "s", appendfsync="everysec") as here:
            router = await here.router()
            assert await router.ask("set", "k", "x" * 3_000_000) == b"+OK\r\n"
            await router.send(("get", "k"))
            router.sock.setblocking(False)
            got = 0
            loop = asyncio.get_running_loop()
            announced = await asyncio.wait_for(loop.sock_recv(router.sock, 1 << 16), 60)
            token = int.from_bytes(announced[24:32], "little")
            credit = struct.pack("<IB7xQQ", 24, wire_link.CREDIT, token, 1 << 30)
            await loop.sock_sendall(router.sock, credit)
            while got < 3_000_000:
                got += len(await asyncio.wait_for(loop.sock_recv(router.sock, 1 << 20), 60))

    run(test)


@pytest.mark.parametrize("appendonly", [True, False])
def test_a_dump_that_is_given_up_while_the_manifest_changes_keeps_what_it_names(
    tmp_path: Path, appendonly: bool
) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", appendonly=appendonly) as here:
            router = await here.router()
            assert await router.ask("set", "k", "v") == b"+OK\r\n"
            here.files.slow("rename", 0.5)
            dumping = asyncio.ensure_future(here.persistence.dump(urgent=True))
            renames = sum(each[0] == "rename" for each in here.files.record)
            await here.until(lambda: list((tmp_path / "s").glob("manifest.tmp")))
            here.persistence.cancel()
            await asyncio.wait([dumping])
            dumping.exception()
            assert sum(each[0] == "rename" for each in here.files.record) > renames
            assert all((tmp_path / "s" / name).exists() for name in here.persistence.manifest.names())
            named = (tmp_path / "s" / "manifest").read_text().split()
            assert all((tmp_path / "s" / word).exists() for word in named if word.endswith((".base", ".log")))

    run(test)


def test_without_a_log_nothing_is_held(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", appendonly=False) as here:
            router = await here.router()
            assert await router.ask("set", "k", "v") == b"+OK\r\n"
            await here.persistence.apply(Config(appendonly=True, appendfsync="always"))
            assert await router.ask("set", "k", "w") == b"+OK\r\n"
            await here.persistence.apply(Config(appendonly=False))
            here.files.fail("pwrite", errno.EIO, times=-1)
            assert await router.ask("set", "k", "x") == b"+OK\r\n"

    run(test)


def test_turning_the_log_off_answers_what_was_logged_only_when_it_is_durable(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path / "s", log_stall_ms=10_000) as here:
            router = await here.router()
            here.files.slow("fdatasync", 3.0, times=1)
            began = time.monotonic()
            await router.send(("set", "k", "v"))
            await here.until(lambda: here.persistence.figures()["sequence"] == 1)
            ending = asyncio.ensure_future(here.persistence.apply(Config(appendonly=False, appendfsync="always")))
            assert await router.replies(1, 0.2) == []
            assert await router.replies(1) == [b"+OK\r\n"] and time.monotonic() - began >= 3
            await ending
            assert await router.ask("set", "k", "w") == b"+OK\r\n"

    run(test)
