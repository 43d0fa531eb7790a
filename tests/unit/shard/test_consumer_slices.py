"""A consumer with much pending beside others goes in slices: nobody sees a half of it, and other keys are served meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from test_locks import Locking, greeted, run
from test_shard_link import frame, on_a_loop

from kache.shard.commands import stream_groups
from kache.wire import link as wire_link

ENTRIES = 3000


async def grouped(entries: int = ENTRIES) -> Locking:
    """A stream whose group has two consumers with so many entries each."""
    peer = await greeted()
    for number in range(1, 2 * entries + 1):
        peer.shard.execute([b"XADD", b"s", b"%d-1" % number, b"f", b"v"])
    peer.shard.execute([b"XGROUP", b"CREATE", b"s", b"g", b"0"])
    for consumer in (b"large", b"other"):
        peer.shard.execute([b"XREADGROUP", b"GROUP", b"g", consumer, b"COUNT", b"%d" % entries, b"STREAMS", b"s", b">"])
    return peer


def summary(peer: Locking) -> bytes:
    return peer.shard.execute([b"XPENDING", b"s", b"g"])


@on_a_loop
async def test_it_is_deleted_in_slices_that_nobody_sees() -> None:
    steps: list[bool] = []
    step = stream_groups._Leaving.step

    def counted(self: Any) -> bool:
        steps.append(step(self))
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_groups._Leaving, "step", counted)
        patch.setattr(stream_groups, "_SLICE_NS", 0)
        await deleted_in_slices(steps)


async def deleted_in_slices(steps: list[bool]) -> None:
    peer = await grouped()
    names = [b"s", b"g", b"large"]
    # Behind it in the same pipeline, of another client, and of one that wants something else.
    await peer.send(
        run([frame("xgroup|delconsumer", *names), frame("xpending", b"s", b"g")], session=2)
        + run([frame("xack", b"s", b"g", b"1-1", b"%d-1" % (ENTRIES + 1))], session=3)
        + run([frame("set", b"elsewhere", b"1")], session=4)
    )
    deleted, behind, acknowledged, free = await peer.replies(4)
    assert free == b"+OK\r\n"
    assert all(isinstance(each, int) for each in (deleted, behind, acknowledged)), "they wait"
    found = dict([await peer.deferred() for _ in range(3)])
    assert found[deleted] == b":%d\r\n" % ENTRIES
    assert found[behind].startswith(b"*4\r\n:%d\r\n" % ENTRIES) and b"large" not in found[behind]
    # The first was the large one's, and went with it.
    assert found[acknowledged] == b":1\r\n"
    assert len(steps) > 10 and steps[-1] is False
    assert b":%d\r\n" % (ENTRIES - 1) in summary(peer)
    assert not peer.shard.locks.busy and peer.shard.deferred_count == 0
    peer.check()
    peer.close()


@on_a_loop
async def test_its_key_may_go_in_the_middle() -> None:
    peer = await grouped()
    await peer.send(run([frame("xgroup|delconsumer", b"s", b"g", b"large")], session=2))
    (token,) = await peer.replies(1)
    assert isinstance(token, int)
    # As eviction, which goes on where a slot is held.
    peer.shard.execute([b"DEL", b"s"])
    assert (await peer.deferred())[0] == token
    assert not peer.shard.locks.busy
    peer.check()
    peer.close()


@on_a_loop
async def test_inside_a_unit_it_goes_at_once() -> None:
    peer = await grouped()
    await peer.send(run([frame("xgroup|delconsumer", b"s", b"g", b"large")], wire_link.ATOMIC, session=2))
    assert await peer.replies(1) == [b":%d\r\n" % ENTRIES]
    assert b":%d\r\n" % ENTRIES in summary(peer)
    peer.check()
    peer.close()
