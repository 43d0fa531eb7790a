"""``kache top``: a screen that follows a cluster."""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from kache.cli.connection import Address, Connection, address_options
from kache.cli.exits import EXIT_USAGE, Failure
from kache.cli.stats import masters
from kache.errors import CommandError

if TYPE_CHECKING:
    from kache.cli.top_view import Frame, View
    from kache.stats import Snapshot

__all__ = ["top"]

_HISTORY = 120
_MOST = 30
"""Entries asked for of each list."""


class _Watcher:
    """The moments of a cluster, one after the other; connects again when it went away."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._where = address.where
        self._connection: Connection | None = None
        self._before: Snapshot | None = None
        self._history: dict[int, deque[float]] = {}

    def connect(self) -> None:
        """Raises Failure where there is no cluster, CommandError where it wants a password."""
        self._connection = Connection(self._address)

    def look(self) -> Frame:
        """The next moment. Raises Failure or CommandError."""
        import msgspec

        from kache.cli.top_view import Frame
        from kache.intervals import between
        from kache.stats import Snapshot

        if self._connection is None:
            self.connect()
        assert self._connection is not None
        try:
            packed = self._connection.request(["stats", "snapshot"])
            lists = self._lists(self._connection)
            nodes = [] if msgspec.msgpack.decode(packed)["states"] else masters(self._connection)
        except Failure:
            self.close()
            raise
        try:
            now = msgspec.msgpack.decode(packed, type=Snapshot)
        except msgspec.MsgspecError as error:
            raise Failure(f"The cluster is of another version: {error}.") from None
        interval = between(self._before, now) if self._before is not None else None
        self._before = now
        for index, span in interval.shards.items() if interval else ():
            self._history.setdefault(index, deque(maxlen=_HISTORY)).append(span.percentile_us(99))
        history = {index: list(values) for index, values in self._history.items()}
        return Frame(self._where, now, interval, history, *lists, nodes)

    def _lists(self, connection: Connection) -> tuple[list[Any], list[Any], list[Any], list[dict[str, str]]]:
        slow = _permitted(connection, "slowlog", "get", str(_MOST), "shards")
        hot, big = (_named(_permitted(connection, name, str(_MOST))) for name in ("hotkeys", "bigkeys"))
        told = _permitted(connection, "client", "list") or b""
        text = told.text if hasattr(told, "text") else told
        lines = (text if isinstance(text, bytes) else str(text).encode()).decode(errors="replace").splitlines()
        clients = [dict(pair.partition("=")[::2] for pair in line.split()) for line in lines if line]
        clients.sort(key=lambda one: -int(one.get("tot-mem", 0)))
        return slow, hot, big, clients

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _permitted(connection: Connection, *words: str) -> Any:
    """What the cluster answers; nothing, where the user may not ask or, in front of a Redis Cluster, nobody can: the figures
    are shown all the same."""
    try:
        return connection.request(list(words))
    except CommandError as error:
        if error.code != "NOPERM" and "in front of a Redis Cluster" not in str(error):
            raise
        return []


def _named(rows: list[dict[bytes, Any]]) -> list[dict[str, Any]]:
    return [
        {name.decode(): value.decode() if name == b"type" else value for name, value in row.items()} for row in rows
    ]


@contextmanager
def _keys_at_once() -> Iterator[int]:
    """Standard input without waiting for lines and without echo; the terminal is put back whatever happens."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _pressed(fd: int, seconds: float) -> str:
    """The keys that come within that time, as soon as there are any."""
    ready, _, _ = select.select([fd], [], [], max(seconds, 0))
    return os.read(fd, 64).decode(errors="replace") if ready else ""


def react(view: View, key: str, shards: int) -> bool:
    """Follow a key; False when it ends the screen."""
    from kache.cli.top_view import PANELS, SORTS

    if key in ("q", "Q", "\x04"):
        return False
    if key in ("p", " "):
        view.paused = not view.paused
    elif key == "s":
        view.sort = (view.sort + 1) % len(SORTS)
    elif key == "\t":
        view.panel = (view.panel + 1) % len(PANELS)
    elif key in ("\x1b[B", "\x1b[A") and not shards:
        return True
    elif key == "\x1b[B":
        view.shard = 0 if view.shard is None else (view.shard + 1) % shards
    elif key == "\x1b[A":
        view.shard = shards - 1 if view.shard is None else (view.shard - 1) % shards
    elif key == "\x1b":
        view.shard = None
    return True


def _split(keys: str) -> list[str]:
    """Keys that came together: an arrow is three characters."""
    found = []
    while keys:
        size = 3 if keys.startswith("\x1b[") else 1
        found.append(keys[:size])
        keys = keys[size:]
    return found


def _run(watcher: _Watcher, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from kache.cli.top_view import View, draw

    console = Console()
    view, frame = View(), watcher.look()
    with _keys_at_once() as fd, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + min(interval, 0.3)  # rates soon
        while True:
            live.update(draw(frame, view, console.width, console.height), refresh=True)
            for key in _split(_pressed(fd, due - time.monotonic())):
                if not react(view, key, len(frame.now.states)):
                    return
            if time.monotonic() < due:
                continue
            due = time.monotonic() + interval
            if view.paused:
                continue
            try:
                frame = watcher.look()
                view.trouble = ""
            except (Failure, CommandError) as error:
                view.trouble = str(error)  # it may come back


@click.command("top")
@address_options
@click.option(
    "--interval", type=click.FloatRange(0.2, 1e6), metavar="SECONDS", default=1.0, show_default=True,
    help="How long to wait between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print one screen, of two looks, and end; works without a terminal.")
def top(interval: float, once: bool, address: Address) -> int:
    """Follow a cluster: load, memory, hits and latency of every shard; busy and slow commands, hot and big keys, clients.

    Latencies, loads and hits are those since the look before; commands per second as in `kache stats`.
    """
    if find_spec("rich") is None:
        raise Failure("kache top needs Rich: pip install 'kache-cluster[top]'.")
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("kache top needs a terminal; --once prints one screen without.", EXIT_USAGE)
    watcher = _Watcher(address)
    try:
        watcher.connect()
        if once:
            _print_once(watcher, interval)
        else:
            _run(watcher, interval)
    except KeyboardInterrupt:
        pass
    finally:
        watcher.close()
    return 0


def _print_once(watcher: _Watcher, interval: float) -> None:
    from rich.console import Console

    from kache.cli.top_view import View, draw

    watcher.look()
    time.sleep(interval)
    console = Console()
    console.print(draw(watcher.look(), View(), console.width, console.height - 1))
