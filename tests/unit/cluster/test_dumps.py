"""Turns of dumps: one shard at a time, save points over summed changes, logs that have grown, what failed is tried later."""

from __future__ import annotations

import msgspec

from kache.cluster import rounds
from kache.cluster.dumps import ACTIVE, CANCELLED, NOTHING_RUNS, REWRITING, RUNNING, Dumps, save_points
from kache.cluster.messages import CancelDump, Down, DumpShard, Kept
from kache.config.settings import Config

MIB = 1 << 20


class Shards:
    """What shards are told; those in `down` cannot be."""

    def __init__(self, count: int = 3) -> None:
        self.told: list[tuple[int, Down]] = []
        self.down: set[int] = set()
        self.answers: list[str] = []
        self.shown: list[int] = []
        self.dumps = Dumps(self.send, range(count), self.shown.append)

    def send(self, shard: int, message: Down) -> bool:
        if shard in self.down:
            return False
        self.told.append((shard, message))
        return True

    def ask(self, *, rewrite: bool = False, schedule: bool = False) -> str:
        return self.dumps.ask(rewrite=rewrite, urgent=False, schedule=schedule, answer=self.answers.append)

    def finish(self, error: str = "") -> int:
        """The shard that was told last has dumped; which it is."""
        shard, message = self.told[-1]
        assert isinstance(message, DumpShard)
        assert self.dumps.answered(shard, message.id, error)
        return shard

    def changes(self, *changes: int, log: int = 0, base: int = 0, logs: int = 1) -> None:
        for shard, count in enumerate(changes):
            self.dumps.kept(shard, Kept(count, log, base, logs))


def test_one_after_the_other() -> None:
    shards = Shards()
    assert shards.ask() == ""
    assert [shard for shard, _ in shards.told] == [0]
    assert (shards.finish(), len(shards.told)) == (0, 2)
    assert (shards.finish(), shards.answers) == (1, [])
    assert (shards.finish(), shards.answers) == (2, [""])
    assert not shards.dumps.running


def test_what_is_under_way_is_shown_from_the_start_to_the_last_shard() -> None:
    shards = Shards()
    shards.ask(rewrite=True)
    shards.ask(schedule=True)
    for _ in range(2):
        shards.finish()
    assert shards.shown == [rounds.REWRITE]
    shards.finish()
    assert shards.shown == [rounds.REWRITE, rounds.NOTHING, rounds.SAVE]
    shards.finish()
    shards.finish("No space left on device")
    assert len(shards.shown) == 3
    shards.finish()
    assert shards.shown[3:] == [rounds.NOTHING]


def test_what_failed_is_told_and_the_others_go_on() -> None:
    shards = Shards()
    shards.down.add(1)
    shards.ask()
    shards.finish("No space left on device")
    assert shards.finish() == 2
    assert shards.answers == ["shard 0: No space left on device; shard 1: it is not running"]
    assert not shards.dumps.answered(2, 77, "")


def test_a_shard_that_ends_does_not_hold_up_the_round() -> None:
    shards = Shards()
    shards.ask()
    shards.dumps.gone(0)
    assert [shard for shard, _ in shards.told] == [0, 1]


def test_a_second_round_waits_or_is_refused() -> None:
    shards = Shards(1)
    shards.ask(rewrite=True)
    assert shards.ask() == ACTIVE
    assert shards.ask(rewrite=True) == REWRITING
    assert shards.ask(schedule=True) == ""
    assert shards.dumps.running and not shards.dumps.saving
    shards.finish()
    assert (shards.answers, len(shards.told)) == ([""], 2)
    assert shards.dumps.saving
    assert shards.ask() == RUNNING
    assert shards.ask(schedule=True) == RUNNING
    assert shards.ask(rewrite=True) == ""
    assert shards.ask(rewrite=True) == REWRITING
    shards.finish()
    shards.finish()
    assert shards.answers == ["", "", ""]


def test_cancel() -> None:
    shards = Shards()
    assert shards.dumps.cancel() == NOTHING_RUNS
    shards.ask()
    shards.ask(rewrite=True)
    assert shards.dumps.cancel() == ""
    assert shards.told.pop() == (0, CancelDump())
    shards.finish("given up")
    assert shards.answers == [CANCELLED] and shards.dumps.running
    assert shards.dumps.cancel() == NOTHING_RUNS  # a rewrite
    shards.ask(schedule=True)
    assert shards.dumps.cancel() == ""
    assert shards.answers == [CANCELLED, CANCELLED] and shards.dumps.running
    assert shards.dumps.cancel(rewrites=True) == ""
    assert shards.told.pop() == (0, CancelDump())
    shards.finish("given up")
    assert shards.answers == [CANCELLED] * 3 and not shards.dumps.running


def test_save_points_are_over_the_sum() -> None:
    assert save_points("900 1 300 10") == [(900, 1), (300, 10)]
    config = msgspec.structs.replace(Config(), save="300 10")
    shards = Shards()
    shards.dumps.look(1000, config)
    shards.changes(4, 4, 1)
    shards.dumps.look(1300, config)
    assert shards.told == []
    shards.changes(4, 4, 2)
    shards.dumps.look(1299, config)
    assert shards.told == []
    shards.dumps.look(1300, config)
    for shard in range(3):
        assert shards.finish() == shard
    shards.dumps.look(1310, config)
    shards.dumps.look(1609, config)
    assert len(shards.told) == 3
    shards.dumps.look(1610, config)
    assert len(shards.told) == 4


def test_a_log_that_has_grown_is_rewritten_alone() -> None:
    config = msgspec.structs.replace(Config(), appendonly=True)
    shards = Shards()
    shards.changes(0, 0, 0, log=63 * MIB, base=1 * MIB)
    shards.dumps.look(1, config)
    shards.changes(0, 0, 0, log=99 * MIB, base=100 * MIB)
    shards.dumps.look(2, config)
    assert shards.told == []
    shards.dumps.kept(1, Kept(0, 100 * MIB, 100 * MIB, 1))
    shards.dumps.look(3, msgspec.structs.replace(config, auto_aof_rewrite_percentage=0))
    assert shards.told == []
    shards.dumps.look(4, config)
    assert (shards.finish(), shards.dumps.running) == (1, False)


def test_many_logs_become_one() -> None:
    config = msgspec.structs.replace(Config(), appendonly=True)
    shards = Shards(1)
    shards.changes(0, log=1000, base=5000, logs=17)
    shards.dumps.look(1, config)
    assert shards.finish() == 0


def test_a_failed_automatic_dump_is_tried_later_and_later() -> None:
    config = msgspec.structs.replace(Config(), save="1 1")
    shards = Shards(1)
    shards.changes(5)
    now, waits = 0.0, []
    shards.dumps.look(now, config)
    for _ in range(9):
        began = now
        while len(shards.told) == len(waits):
            now += 1
            shards.dumps.look(now, config)
        waits.append(now - began)
        shards.finish("No space left on device")
    assert waits == [1, 61, 121, 241, 481, 961, 1921, 3601, 3601]
