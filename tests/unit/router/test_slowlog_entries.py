"""The slow log of a router: limits, numbers, and how times are put into the classes of LATENCY HISTOGRAM."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from kache.cluster import numbers
from kache.router.commands.latency import cumulative
from kache.router.slowlog import SlowLog
from kache.stats import HISTOGRAM_BUCKETS, bucket_value


def note(log: SlowLog, *words: bytes) -> None:
    start = b"".join(len(word).to_bytes(8, "little") + word[:128] for word in words[:32])
    log.note(1_700_000_000_000, 5, "1.2.3.4:5", b"name", start, len(words))


def test_the_newest_are_kept() -> None:
    log = SlowLog(itertools.count(7), 3)
    for number in range(5):
        note(log, b"get", b"%d" % number)
    assert [(entry.number, entry.words[1]) for entry in log.newest(-1)] == [(11, b"4"), (10, b"3"), (9, b"2")]
    log.configure(2)
    assert [entry.number for entry in log.newest(-1)] == [11, 10] and len(log) == 2
    assert [entry.number for entry in log.newest(1)] == [11]
    log.configure(0)
    note(log, b"get", b"k")
    assert len(log) == 0
    log.configure(1)
    note(log, b"get", b"k")
    assert log.newest(1)[0].number == 12  # what is not kept takes no number


def test_several_processes_count_together(tmp_path: Path) -> None:
    page = numbers.create(str(tmp_path))
    one, two = numbers.shared(page), numbers.shared(page)
    assert [next(each) for each in (one, two, two, one)] == [0, 1, 2, 3]
    one.close()
    two.close()
    os.close(page)


def test_classes_of_a_histogram() -> None:
    assert cumulative({}) == {}
    nanoseconds = {bucket_value(b): b for b in range(HISTOGRAM_BUCKETS)}
    assert cumulative({nanoseconds[1023]: 3}) == {1: 3}
    found = cumulative({0: 1, nanoseconds[1023]: 1, nanoseconds[1087]: 5, nanoseconds[2**20 - 1]: 2})
    assert found == {1: 2, 2: 7, 1048: 9}
