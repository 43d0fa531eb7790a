"""Whose turn it is to dump: one shard at a time, when somebody asks, when the save points say so, when a log has grown.

    ask ───────────────┐
    save points ───────┼─► a round: shard after shard is told to dump; each answers when its new base counts
    a log has grown ───┘   (of that shard alone)

Bookkeeping without I/O of its own, for the supervisor; times are of time.monotonic().
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kache.cluster import rounds
from kache.cluster.messages import CancelDump, Down, DumpShard, Kept
from kache.config.settings import Config

__all__ = ["CANCELLED", "Dumps", "save_points"]

FIRST_WAIT = 60.0
LONGEST_WAIT = 3600.0
"""Seconds until an automatic dump is tried again after a failed one: doubled each time."""

NOT_KEPT = "ERR nothing is kept on disk yet: the data directory cannot be opened"
RUNNING = "ERR Background save already in progress"
REWRITING = "ERR Background append only file rewriting already in progress"
ACTIVE = (
    "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to schedule a BGSAVE "
    "whenever possible."
)
NOTHING_RUNS = "ERR Background saving is currently not in progress or scheduled"

CANCELLED = "ERR cancelled"
"""What a round says that was given up because somebody asked for that."""

_log = logging.getLogger("kache")

Answer = Callable[[str], None]


def save_points(text: str) -> list[tuple[int, int]]:
    """[(seconds, changes)] of the setting ``save``."""
    numbers = [int(word) for word in text.split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@dataclass(slots=True)
class _Round:
    shards: deque[int]
    answer: Answer
    rewrite: bool
    urgent: bool
    automatic: bool
    failures: list[str] = field(default_factory=list)
    cancelled: bool = False


class Dumps:
    """`send` tells a shard; `answered` must be called with every Dumped of one. `shards` are those that keep something. `show` is
    told what is under way (`kache.cluster.rounds`) whenever that changes."""

    def __init__(
        self, send: Callable[[int, Down], bool], shards: Sequence[int], show: Callable[[int], None] = lambda what: None
    ) -> None:
        self._send = send
        self._show = show
        self._shards = list(shards)
        self._round: _Round | None = None
        self._waiting: deque[_Round] = deque()
        self._asked: tuple[int, int] | None = None
        """(number of the request, shard) that is being dumped."""
        self._last_number = 0
        self._kept: dict[int, Kept] = {}
        self._saved_at: float | None = None
        self._wait = 0.0
        self._not_before = 0.0

    # Asking ---------------------------------------------------------------------------------------------
    @property
    def running(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None

    @property
    def saving(self) -> bool:
        """Whether that is a save, and not a rewrite."""
        return self._round is not None and not self._round.rewrite

    def ask(self, *, rewrite: bool, urgent: bool, schedule: bool, answer: Answer) -> str:
        """A round over all shards: "" or why not, at once; `answer` gets "" or what failed when it is over.

        A save waits for a rewrite under way if `schedule`, and a rewrite for a save.
        """
        refused = self._refusal(rewrite, urgent, schedule)
        if refused:
            return refused
        self._waiting.append(_Round(deque(self._shards), answer, rewrite, urgent, automatic=False))
        self._go_on()
        return ""

    def _refusal(self, rewrite: bool, urgent: bool, schedule: bool) -> str:
        if self._round is None:
            return ""
        if rewrite:
            waits = any(each.rewrite and not each.automatic for each in self._waiting)
            return REWRITING if self._round.rewrite or waits else ""
        if not self._round.rewrite:
            return RUNNING
        return "" if schedule else REWRITING if urgent else ACTIVE

    def cancel(self, *, rewrites: bool = False) -> str:
        """Give up the save under way and those that wait, and `rewrites` too if so; "" or why not."""
        given_up = [each for each in self._waiting if rewrites or not each.rewrite]
        runs = self._round is not None and (rewrites or not self._round.rewrite)
        if not runs and not given_up:
            return NOTHING_RUNS
        self._waiting = deque(each for each in self._waiting if each not in given_up)
        for waiting in given_up:
            waiting.answer(CANCELLED)
        if not runs or self._round is None:
            return ""
        self._round.cancelled = True
        self._round.shards.clear()
        if self._asked is not None:
            self._send(self._asked[1], CancelDump())
        return ""

    # Shards ---------------------------------------------------------------------------------------------
    def kept(self, shard: int, kept: Kept) -> None:
        """A shard says how much it has changed and how long its log is."""
        self._kept[shard] = kept

    def answered(self, shard: int, number: int, error: str) -> bool:
        """A shard has dumped, or could not for the reason `error`; False when that was not asked for."""
        if self._asked != (number, shard):
            return False
        self._asked = None
        if error and self._round is not None:
            self._round.failures.append(f"shard {shard}: {error}")
        self._go_on()
        return True

    def gone(self, shard: int) -> None:
        """A shard has ended: its dump with it."""
        self._kept.pop(shard, None)
        if self._asked is not None and self._asked[1] == shard:
            self.answered(shard, self._asked[0], "it ended")

    def _go_on(self) -> None:
        while self._asked is None:
            if self._round is None:
                if not self._waiting:
                    return
                self._round = self._waiting.popleft()
                self._show(rounds.REWRITE if self._round.rewrite else rounds.SAVE)
            if not self._round.shards:
                self._end()
                continue
            shard = self._round.shards.popleft()
            self._last_number += 1
            self._asked = (self._last_number, shard)
            if not self._send(shard, DumpShard(self._last_number, self._round.urgent)):
                self._asked = None
                self._round.failures.append(f"shard {shard}: it is not running")

    def _end(self) -> None:
        ended, self._round = self._round, None
        assert ended is not None
        self._show(rounds.NOTHING)
        if not ended.failures and not ended.cancelled:
            self._wait = 0.0
            self._saved_at = None  # the next look at the clock sets it
        elif ended.automatic:
            # One that was cancelled, too: the save points would have it back at once.
            self._wait = min(max(2 * self._wait, FIRST_WAIT), LONGEST_WAIT)
            self._not_before = -1.0
            if ended.cancelled:
                _log.info("an automatic dump was cancelled; the next in %g s", self._wait)
            else:
                _log.warning(
                    "an automatic dump has failed (%s); the next try in %g s", "; ".join(ended.failures), self._wait
                )
        ended.answer("; ".join(ended.failures) if not ended.cancelled else CANCELLED)

    # By itself --------------------------------------------------------------------------------------------
    def look(self, now: float, config: Config) -> None:
        """Begin what is due by the save points or the length of a log; to be called about once a second."""
        if self._saved_at is None:
            self._saved_at = now
        if self._not_before < 0:
            self._not_before = now + self._wait
        if self._round is not None or now < self._not_before:
            return
        changes = sum(kept.changes for kept in self._kept.values())
        since = now - self._saved_at
        if any(since >= seconds and changes >= least for seconds, least in save_points(config.save)):
            _log.info("%d changes in %d s: saving", changes, since)
            self._begin(self._shards, rewrite=False)
            return
        for shard, kept in self._kept.items():
            if config.appendonly and _has_grown(kept, config):
                _log.info("the log of shard %d has %d bytes beside a base of %d: rewriting", shard, kept.log, kept.base)
                self._begin([shard], rewrite=True)
                return

    def _begin(self, shards: Sequence[int], *, rewrite: bool) -> None:
        self._waiting.append(_Round(deque(shards), lambda _: None, rewrite, urgent=False, automatic=True))
        self._go_on()


def _has_grown(kept: Kept, config: Config) -> bool:
    if not config.auto_aof_rewrite_percentage or kept.log < config.auto_aof_rewrite_min_size:
        return kept.logs > MOST_LOGS
    return kept.log >= kept.base * config.auto_aof_rewrite_percentage / 100


MOST_LOGS = 16
"""Logs of a shard, one a start, at which a dump makes them one."""
