"""What the supervisor says of its cluster: the sentence when it serves, the answer to a request for its status, and what in
that answer means that the cluster is not ready."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from kache import __version__
from kache.cluster.children import Child
from kache.cluster.messages import ClusterStatus
from kache.config.kinds import format_address, format_size
from kache.config.settings import SETTINGS, Config
from kache.slots import SlotRange

__all__ = ["cluster_status", "ready_line", "unready"]


def ready_line(config: Config, broken: Sequence[Child]) -> str:
    """Where clients are served and how it is stopped; `broken` are the children that could not be started."""
    memory = f"maxmemory {format_size(config.maxmemory)} ({config.maxmemory_policy})"
    shards = f"{config.shards} shard{'s' if config.shards > 1 else ''}"
    if config.backend:
        shards = f"{config.routers} router{'s' if config.routers > 1 else ''} in front of {config.backend}"
    elif config.routers > 1:
        shards += f" behind {config.routers} routers"
    where = ", ".join(format_address(host, config.port or config.tls_port) for host in config.bind)
    tls = "" if not config.tls_port else f"; TLS on port {config.tls_port}" if config.port else "; with TLS only"
    text = (
        f"Kache {__version__} {'partly ' if broken else ''}ready on {where}: {shards}, "
        f"{memory if config.maxmemory else 'no maxmemory' if not config.backend else 'the data is its own'}{tls}. "
        f"Stop with Ctrl-C or `kache cluster stop --port {config.port or config.tls_port}`."
    )
    return text + "".join(f" {child.name} is down: {child.reason}." for child in broken)


def cluster_status(
    config: Config,
    children: Sequence[Child],
    slots: tuple[int, list[SlotRange]],
    started_ms: int,
    run_dir: str,
    draining: bool,
) -> ClusterStatus:
    """All that `kache cluster status` shows, secrets not; `slots` is (epoch, ranges)."""
    shown = {n: "***" if s.secret and config.setting(n) else s.show(config.setting(n)) for n, s in SETTINGS.items()}
    served = next((child.tls for child in children if child.tls is not None and child.tls.serial), None)
    return ClusterStatus(
        version=__version__,
        pid=os.getpid(),
        port=config.port,
        bind=list(config.bind),
        started_ms=started_ms,
        now_ms=time.time_ns() // 1_000_000,
        run_dir=run_dir,
        config=shown,
        children=[child.status() for child in children],
        slot_epoch=slots[0],
        slots=slots[1],
        draining=draining,
        tls_port=config.tls_port,
        tls_serial=served.serial if served else "",
        tls_expires=served.expires if served else 0,
    )


def unready(status: ClusterStatus) -> list[str]:
    """Why the cluster is not ready: a sentence without its full stop for everybody who is not up."""
    reasons = ["the cluster is stopping"] if status.draining else []
    for child in status.children:
        if child.state != "up" and child.role != "metrics":
            reasons.append(f"{child.role} {child.index} is {child.state}{f' ({child.reason})' if child.reason else ''}")
    return reasons
