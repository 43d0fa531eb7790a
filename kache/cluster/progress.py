"""How far work is that takes long: a bar on the terminal where there is one, and else lines of the log.

A bar is the last line of a terminal. Whoever logs there begins with a line that is erased first (kache/cluster/logs.py), and
the bar is drawn anew with what comes next.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

from kache.cluster.messages import Loading
from kache.config.kinds import format_size

__all__ = ["ERASE", "Bar", "LoadingBar", "counted", "dumping_text", "loading_text", "on_terminal"]

_log = logging.getLogger("kache")

WIDTH = 30
ERASE = "\r\x1b[K"
"""Goes to the start of a terminal's line, which is empty then."""
LINE_SECONDS = 5.0


def on_terminal() -> bool:
    """Whether standard error is one."""
    try:
        return os.isatty(2)
    except OSError:
        return False


def counted(n: int, what: str) -> str:
    """``1 key``, ``3,400,000 keys``"""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def loading_text(loading: Loading) -> str:
    """``41 % of 2.1gb, 3,400,000 keys, 1,200,000 a second, 7 s left``"""
    rate = loading.done / loading.seconds if loading.seconds > 0 else 0.0
    left = f", {(loading.total - loading.done) / rate:.0f} s left" if rate > 0 else ""
    share = 100 * loading.done / loading.total if loading.total else 100
    keys = (
        f"{counted(loading.keys, 'key')}, {loading.keys / loading.seconds if loading.seconds > 0 else 0:,.0f} a second"
    )
    return f"{share:.0f} % of {format_size(loading.total)}, {keys}{left}"


def dumping_text(done: float, keys: int, seconds: float) -> str:
    """``dumping: 41 %, 3,400,000 keys, 1,200,000 a second, 2 s left``; `done` is a share of 1."""
    rate = f", {keys / seconds:,.0f} a second" if seconds > 0 else ""
    left = f", {seconds * (1 - done) / done:.0f} s left" if 0 < done < 1 else ""
    return f"dumping: {100 * done:.0f} %, {counted(keys, 'key')}{rate}{left}"


def _drawn(share: float) -> str:
    return f"[{'#' * round(WIDTH * min(share, 1.0)):{WIDTH}}]"


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class Bar:
    """Of one piece of work that counts bytes; a line of the log every few seconds where there is no terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._told = time.monotonic()
        self._on_terminal = on_terminal()

    def show(self, done: int, total: int) -> None:
        """`done` of `total` bytes."""
        now = time.monotonic()
        share = done / total if total else 1.0
        seconds = now - self._began
        text = f"{100 * share:.0f} % of {format_size(total)}"
        if done and seconds:
            text += f", {format_size(int(done / seconds))} a second, {seconds * (1 - share) / share:.0f} s left"
        if self._on_terminal:
            _write(f"{ERASE}{self._what} {_drawn(share)} {text}")
        elif now - self._told >= LINE_SECONDS:
            self._told = now
            _log.info("%s: %s", self._what, text)

    def end(self) -> None:
        """The line is free again."""
        if self._on_terminal:
            _write(ERASE)


class LoadingBar:
    """Of all shards that load, together; nothing where there is no terminal, since each of them logs how far it is.

    `logs_there`: whether this cluster's log is the terminal, too: else the bar would be of nobody's.
    """

    def __init__(self, logs_there: bool, write: Callable[[str], None] = _write) -> None:
        self._write = write
        self._wanted = logs_there and on_terminal()
        self._shards: dict[int, Loading] = {}

    def told(self, shard: int, loading: Loading) -> None:
        """A shard has said how far it is."""
        if self._wanted:
            self._shards[shard] = loading
            self._draw()

    def over(self, shard: int) -> None:
        """It loads no longer."""
        if self._shards.pop(shard, None) is None:
            return
        if self._shards:
            self._draw()
        else:
            self._write(ERASE)

    def _draw(self) -> None:
        several = list(self._shards.values())
        done, total, keys = (sum(figures) for figures in zip(*((each.done, each.total, each.keys) for each in several), strict=True))  # fmt: skip
        together = Loading(done, total, keys, max(each.seconds for each in several))
        shards = f" {len(several)} shards" if len(several) > 1 else ""
        self._write(f"{ERASE}loading{shards} {_drawn(done / total if total else 1.0)} {loading_text(together)}")
