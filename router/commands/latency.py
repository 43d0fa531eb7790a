"""LATENCY: how long commands took. The monitor of events is off, as on a real server that was not told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.commands import TABLE
from kache.errors import CommandError
from kache.figures import command_histograms
from kache.replies import Reply, Verbatim
from kache.stats import Snapshot, bucket_value, percentile

from ..registry import local
from .arguments import text
from .info import command_latencies
from .statistics import snapshot

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["cumulative"]

STALL_US = 20_000
"""From here on somebody notices."""
WAITING = frozenset(row.name for row in TABLE if "blocking" in row.flags)
"""Commands that take as long as their client wants."""
FIRST_NS = 1024
"""The upper end of the first class of LATENCY HISTOGRAM; each of the others has twice that of the one before."""


def cumulative(histogram: dict[int, int]) -> dict[int, int]:
    """{microseconds: commands that took up to so long}, in powers of two; classes that add nothing are left out."""
    found: dict[int, int] = {}
    limit, count = FIRST_NS, 0
    for bucket in sorted(histogram):
        while bucket_value(bucket) > limit:
            limit *= 2
        count += histogram[bucket]
        found[limit // 1000] = count
    return found


@local("latency|histogram")
async def latency_histogram(router: Router, session: Session, *names: bytes) -> Reply:
    """{command: {calls, histogram_usec}} of the commands named, subcommands of a container too, or of all."""
    histograms = await command_latencies(router)
    wanted = [text(name).lower() for name in names]
    return {
        name.encode(): {b"calls": sum(histogram.values()), b"histogram_usec": cumulative(histogram)}
        for name, histogram in sorted(histograms.items())
        if not wanted or name in wanted or name.partition("|")[0] in wanted
    }


@local("latency|latest")
def latency_latest(router: Router, session: Session) -> Reply:
    """No events are recorded."""
    return []


@local("latency|history")
def latency_history(router: Router, session: Session, event: bytes) -> Reply:
    """Nor has any a history."""
    return []


@local("latency|reset")
def latency_reset(router: Router, session: Session, *events: bytes) -> Reply:
    """How many kinds of events were forgotten."""
    return 0


@local("latency|graph")
def latency_graph(router: Router, session: Session, event: bytes) -> Reply:
    """Nothing to draw."""
    raise CommandError(f"ERR No samples available for event '{text(event)}'")


@local("latency|doctor")
async def latency_doctor(router: Router, session: Session) -> Reply:
    """For people: what is slow, and in which shard or router."""
    remarks = _remarks(await snapshot(router))
    shown = "\n".join(remarks) if remarks else "Nothing unusual."
    return Verbatim(
        f"{shown}\nKache records no latency events: SLOWLOG GET 10 SHARDS has slow commands, LATENCY HISTOGRAM how long each "
        "command takes, `kache top` both as they change.\n".encode()
    )


def _remarks(moment: Snapshot) -> list[str]:
    remarks = [f"Shard {index} does not answer: {reason}" for index, reason in sorted(moment.silent.items())]
    for shard in moment.shards:
        if shard.stall_us >= STALL_US:
            remarks.append(f"Shard {shard.index} stalled for {shard.stall_us / 1000:.0f} ms in the last minute.")
        if moment.round_trips_us[shard.index] >= STALL_US:
            took = moment.round_trips_us[shard.index] / 1000
            remarks.append(f"Shard {shard.index} took {took:.0f} ms to answer just now: it has much to do.")
    for router in moment.routers:
        if router.counters["lag_us"] >= STALL_US:
            lag = router.counters["lag_us"] / 1000
            remarks.append(f"Router {router.index} ran its timers {lag:.0f} ms late in the last minute.")
    for name, histogram in sorted(command_histograms(moment).items()):
        slowest = percentile(histogram, 99) / 1e6
        if slowest >= STALL_US / 1000 and name not in WAITING:
            remarks.append(f"One in a hundred {name.upper()} takes {slowest:.0f} ms or more.")
    return remarks
