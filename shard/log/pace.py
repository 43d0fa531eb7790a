"""The pace of a dump: how its slices share the loop with those who send commands.

A slice is what others wait for at most. While there are commands the dump rests after each, many times as long as it took, and
then lets those go first who wait already; while there are none it goes on at once. What is said goes to the disk by a thread
that stands back (writer.pyx): when it is behind, the dump waits, so that memory stays within bounds.

A slice is counted in time of the processor. By the clock one may last longer on a busy machine, whose other processes had the
core meanwhile; that is not the dump's, and no reason to rest the longer.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..engine.engine import Host
    from .base import Dump
    from .writer import Writer

__all__ = ["DumpError", "check", "every_slice"]

SLICE_NS: Final = 200_000
"""Nanoseconds of one slice: what clients notice of a dump is this."""
SLICE_BYTES: Final = 262_144
MOST_UNWRITTEN: Final = 8 << 20
"""Bytes of a base that are said and not written yet: then the dump waits for the disk."""
BUSY_REST: Final = 15
"""Times a slice's length that a dump rests while there are commands: a sixteenth of the time is its own."""
LONGEST_WAY: Final = 0.001
"""Seconds by which a slice lets those go first who wait for the shard; then it is their turn to wait."""
FULL_REST: Final = 0.002
"""Seconds that it rests when the disk is behind."""


class DumpError(Exception):
    """A dump that failed or was given up; the message is for people."""


def check(writer: Writer) -> None:
    """DumpError when it cannot write any more."""
    call, error = writer.failure
    if error:
        raise DumpError(f"{call}: {os.strerror(error)}")


async def every_slice(dump: Dump, out: Writer, host: Host, *, urgent: bool) -> None:
    """Everything that the dump has to say; `out` is its writer. `urgent`: without a rest, whoever waits."""
    shard = host.shard
    executed = shard.executed
    while True:
        # Whether there were commands since the last slice: within one nothing is executed.
        busy, before = shard.executed != executed, dump.cpu_ns
        if out.queued < MOST_UNWRITTEN and not dump.slice(SLICE_NS, SLICE_BYTES):
            return
        executed = shard.executed
        check(out)
        rest = 0.0
        if out.queued >= MOST_UNWRITTEN:
            rest = FULL_REST
        elif busy and not urgent:
            rest = (dump.cpu_ns - before) * BUSY_REST / 1e9
        await asyncio.sleep(rest)
        if rest and not urgent:
            await _give_way(host)


async def _give_way(host: Host) -> None:
    """Waits for a moment in which no router does."""
    until = time.monotonic() + LONGEST_WAY
    while host.reactor.is_wanted() and time.monotonic() < until:
        await asyncio.sleep(0)
