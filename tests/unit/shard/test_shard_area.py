"""The shard's end of the memory that a router shares with it: arguments and replies there, and nonsense about it."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from test_shard_link import BOOT_ID, RESP2, Peer, run_of

from kache.commands import BY_KEY, DIGEST
from kache.slots import slot_of_key
from kache.wire import link as wire_link

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no such memory here")

HEAD = 4096
ROOM = 1 << 20
VALUE = bytes(range(256)) * 200


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(**given: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**given), 60))

    return wrapper


class Sharing(Peer):
    """A router that shares memory: a ring each way behind a page that says how much of it may be used."""

    memory: mmap.mmap

    def offer(self, size: int = HEAD + 2 * ROOM, *, said: int | None = None, seal: bool = True) -> None:
        memory = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, size)
        if seal:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.memory = mmap.mmap(memory, size)
        self.memory[:8] = struct.pack("<Q", ROOM)
        hello = struct.pack("<IBBH8sQIQ", 32, wire_link.HELLO, wire_link.VERSION, 3, DIGEST, BOOT_ID, 0, said or size)
        socket.send_fds(self.sock, [hello], [memory])
        os.close(memory)

    def close(self) -> None:
        super().close()
        if hasattr(self, "memory"):
            self.memory.close()

    def place(self, position: int, value: bytes) -> None:
        self.memory[HEAD + position : HEAD + position + len(value)] = value

    def taken(self) -> int:
        return int(struct.unpack_from("<Q", self.memory, 64)[0])

    async def accepted(self) -> bool:
        answer = await self.message()
        assert answer[0] == wire_link.HELLO_OK
        return answer[-1] == 1


def open_memories() -> int:
    """Descriptors of this process that stand for such memory."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += "memfd:test" in os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # of the listing itself
    return found


def set_placed(key: bytes, position: int, size: int) -> bytes:
    body = struct.pack("<HHI", BY_KEY["set"].id, slot_of_key(key), 2) + struct.pack("<I", len(key)) + key
    body += struct.pack("<IQ", size | wire_link.PLACED_ARGUMENT, position)
    return struct.pack("<I", len(body)) + body


def get(key: bytes) -> bytes:
    body = struct.pack("<HHII", BY_KEY["get"].id, slot_of_key(key), 1, len(key)) + key
    return struct.pack("<I", len(body)) + body


@on_a_loop
async def test_arguments_and_replies_lie_there() -> None:
    peer = Sharing()
    peer.offer()
    assert await peer.accepted()
    peer.place(0, VALUE)
    peer.place(64 * 1024, VALUE[::-1])
    frames = [set_placed(b"a", 0, len(VALUE)), set_placed(b"b", 64 * 1024, len(VALUE)), get(b"a"), get(b"b")]
    await peer.send(run_of(frames))
    found: list[Any] = []
    while len(found) < 4:
        message = await peer.message()
        if message[0] == wire_link.SLOW:
            continue
        assert message[0] == wire_link.REPLY
        at = 16
        for _ in range(int.from_bytes(message[4:8], "little")):
            (size,) = struct.unpack_from("<I", message, at)
            at += 4
            if size == wire_link.PLACED_REPLY:
                size, position = struct.unpack_from("<IQ", message, at)
                at += 12
                found.append(peer.memory[HEAD + ROOM + position :][:size])
            else:
                found.append(message[at : at + size])
                at += size
    size = b"$%d\r\n" % len(VALUE)
    assert found == [b"+OK\r\n", b"+OK\r\n", size + VALUE + b"\r\n", size + VALUE[::-1] + b"\r\n"]
    assert peer.taken() >= 64 * 1024 + len(VALUE)
    peer.close()


@on_a_loop
async def test_without_room_replies_come_by_the_socket() -> None:
    peer = Sharing()
    peer.offer()
    assert await peer.accepted()
    peer.place(0, VALUE)
    peer.memory[:8] = bytes(8)
    await peer.send(run_of([set_placed(b"a", 0, len(VALUE)), get(b"a")]))
    assert await peer.replies(2) == [b"+OK\r\n", b"$%d\r\n" % len(VALUE) + VALUE + b"\r\n"]
    peer.close()


@pytest.mark.parametrize("position, size", [(ROOM - 64, 65), (10 * ROOM, 64), (2**64 - 64, 64), (0, 0)])
@on_a_loop
async def test_an_argument_where_nothing_can_lie_ends_the_link(position: int, size: int) -> None:
    peer = Sharing()
    peer.offer()
    assert await peer.accepted()
    await peer.send(run_of([set_placed(b"a", position, size)]))
    assert await peer.message() == b""
    peer.close()


@on_a_loop
async def test_atomic_runs_place_nothing() -> None:
    peer = Sharing()
    peer.offer()
    assert await peer.accepted()
    peer.place(0, VALUE)
    await peer.send(run_of([set_placed(b"a", 0, len(VALUE))], wire_link.ATOMIC))
    assert await peer.message() == b""
    peer.close()


@on_a_loop
async def test_an_argument_that_is_said_to_lie_where_nothing_is_shared() -> None:
    peer = Peer()
    await peer.greet()
    await peer.send(run_of([set_placed(b"a", 0, 64)], dialect=RESP2))
    assert await peer.message() == b""
    peer.close()


@pytest.mark.parametrize("what", ["another size", "not sealed", "too small", "odd"])
@on_a_loop
async def test_memory_that_is_none_is_not_taken(what: str) -> None:
    """The link serves without it, and no descriptor stays."""
    peer = Sharing()
    if what == "another size":
        peer.offer(said=HEAD + 4 * ROOM)
    elif what == "not sealed":
        peer.offer(seal=False)
    elif what == "too small":
        peer.offer(HEAD)
    else:
        peer.offer(HEAD + 2 * 100)
    assert not await peer.accepted()
    await peer.send(run_of([get(b"a")]))
    assert await peer.replies(1) == [b"$-1\r\n"]
    peer.close()
    assert open_memories() == 0


@on_a_loop
async def test_a_descriptor_nobody_asked_for_is_closed() -> None:
    peer = Sharing()
    memory = os.memfd_create("test")
    hello = struct.pack("<IBBH8sQI", 24, wire_link.HELLO, wire_link.VERSION, 3, DIGEST, BOOT_ID, 0)
    socket.send_fds(peer.sock, [hello[:7]], [memory])
    await asyncio.sleep(0.01)
    socket.send_fds(peer.sock, [hello[7:]], [memory])
    os.close(memory)
    assert not await peer.accepted()
    peer.close()
    assert open_memories() == 0
