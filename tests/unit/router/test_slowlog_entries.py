"""The slow log of a router: limits, numbers, and how times are put into the classes of LATENCY HISTOGRAM."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_mux import ask, binary, cluster, replies, resp, run

from kache.cluster import numbers
from kache.router.commands.latency import cumulative
from kache.router.slowlog import SlowLog, unframed
from kache.slow import cut
from kache.stats import HISTOGRAM_BUCKETS, bucket_value


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_divided_command_takes_as_long_as_its_longest_part() -> None:
    """What waits for a shard is not slow itself: under load everything waits."""

    async def test() -> None:
        async with cluster(3, slowlog_log_slower_than=1000) as running:
            log = running.router.slowlog
            client = await running.connect()
            keys = [running.key_on(shard) for shard in range(3)]
            running.shards[1].hold = True
            client[1].write(resp("MGET", *keys))
            await until(lambda: bool(running.shards[1].executed))
            await asyncio.sleep(0.003)  # longer than the limit
            running.shards[1].release()
            assert await replies(client[0], 1) == [[None, None, None]] and len(log) == 0
            for shard, took in enumerate((2_000_000, 0, 5_000_000)):
                running.shards[shard].slow_ns = took
            assert await ask(client, "MGET", *keys) == [None, None, None]
            assert await ask(client, "dbsize") == 0
            assert [(entry.took_us, entry.words) for entry in log.newest(-1)] == [
                (5000, [b"dbsize"]),
                (5000, [b"MGET", *keys]),
            ]
            # A command of one shard tells of itself; a part that nobody waits for is nobody's.
            running.shards[0].slow_ns = 9_000_000
            assert await ask(client, "GET", keys[0]) is None
            assert len(log) == 2

    run(test)


def note(log: SlowLog, *words: bytes) -> None:
    log.note(1_700_000_000_000, 5, "1.2.3.4:5", b"name", [*words], [*map(len, words)], len(words))


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


WORDS = [b"mset", b"", b"x" * 128, b"y" * 129, b"$3\r\n", b"z" * 3000, *(b"%d" % number for number in range(40))]


@pytest.mark.parametrize("frame", [resp, binary])
def test_words_are_found_in_a_request_wherever_it_was_cut_off(frame: Callable[..., bytes]) -> None:
    request = frame(*WORDS)
    start = request[request.index(b"mset") :]
    for end in range(4, len(start) + 1):
        words, sizes = unframed(start[:end], 4, len(WORDS), frame is binary)
        assert words == [word[:128] for word in WORDS[: len(words)]] and sizes == [*map(len, WORDS[: len(words)])]
        entry = cut(words, len(WORDS), sizes)
        assert len(entry) == min(len(words), 31) + 1
        assert entry[-1] == b"... (%d more arguments)" % (len(WORDS) - len(entry) + 1)
    assert len(words) == 32


def test_inline_and_binary_commands_over_shards_enter_as_they_were_sent() -> None:
    async def test() -> None:
        async with cluster(3, slowlog_log_slower_than=0) as running:
            keys = [running.key_on(shard) for shard in range(3)]
            reader, writer = await running.connect()
            writer.write(b"mGET  %s  '%s' \"\\x6b%s\"\r\n" % (keys[0], keys[1], keys[2][1:]))
            assert await replies(reader, 1) == [[None, None, None]]
            _, writer = await running.connect()
            writer.write(binary(b"Del", *keys))
            await until(lambda: len(running.router.slowlog) == 2)
            assert [entry.words for entry in running.router.slowlog.newest(-1)] == [[b"Del", *keys], [b"mGET", *keys]]

    run(test)


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
