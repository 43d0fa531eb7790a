"""LATENCY: how long commands took. The monitor of events is off, as on a real server that was not told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kache.errors import CommandError
from kache.replies import Reply, Verbatim
from kache.stats import bucket_value

from ..registry import local
from .arguments import text
from .info import command_latencies

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__ = ["cumulative"]

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
def latency_doctor(router: Router, session: Session) -> Reply:
    """For people: where to look instead."""
    return Verbatim(
        b"Kache records no latency events. SLOWLOG has the slowest commands, LATENCY HISTOGRAM and the section "
        b"latencystats of INFO have how long each command takes, `kache stats` has the longest stalls.\n"
    )
