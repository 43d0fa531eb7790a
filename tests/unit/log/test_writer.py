"""The writer: frames byte for byte, in their order; what is written and durable; disks that are full, slow or broken."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_files import written

from kache.shard.log import format as log_format
from kache.shard.log import writer as writers
from kache.shard.log.files import Files, ScriptedFiles
from kache.shard.log.format import frame
from kache.shard.log.writer import TROUBLES, Writer

SALT = bytes(range(16))
LIMITS = 2_000_000_000, 64 << 20, 1_500_000_000
SECONDS = 20
GOLDEN = bytes.fromhex("464b01000300000001000000000000000100000076e908c8d202000000000000eb4681afe824ce6f616263")
"""The first frame of a log: EFFECTS, sequence 1, 1 behind, at 722 ms, of the payload abc."""


class Stream:
    """A writer on a file of its own."""

    def __init__(self, path: Path, files: Files, policy: int) -> None:
        self.path = path
        self.files = files
        self.writer = Writer(files, policy)
        self.writer.switch(self.open(path), SALT)
        self.writer.start()

    def open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, bytes(log_format.HEADER_SIZE), 0)
        return fd

    def put(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.writer.put(log_format.EFFECTS, payload, 722)

    def until(self, reached: Callable[[], bool]) -> None:
        """Waits for news until it is so."""
        deadline = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < deadline, (self.writer.figures(), self.writer.failure)
            select.select([self.writer.news], [], [], 0.05)
            self.writer.hear()

    @property
    def trouble(self) -> str:
        return TROUBLES[self.writer.troubled(*LIMITS)]

    def payloads(self, path: Path | None = None) -> list[bytes]:
        """Of the EFFECTS in the file, each of whose frames is proven byte for byte; an END behind them is taken off."""
        data, at, found = written(path or self.path), log_format.HEADER_SIZE, []
        while at < len(data):
            kind, length = data[at + 2], int.from_bytes(data[at + 4 : at + 8], "little")
            sequence, behind = (int.from_bytes(data[at + a : at + b], "little") for a, b in ((8, 16), (16, 20)))
            now_ms = int.from_bytes(data[at + 24 : at + 32], "little")
            payload = data[at + 40 : at + 40 + length]
            assert data[at : at + 40 + length] == frame(kind, payload, sequence, SALT, at, now_ms=now_ms, behind=behind)
            if kind == log_format.EFFECTS:
                found.append(payload)
                assert sequence >= behind
            at += 40 + length
        return found


@pytest.fixture
def scripted() -> ScriptedFiles:
    return ScriptedFiles()


@pytest.fixture
def stream(tmp_path: Path, scripted: ScriptedFiles, request: pytest.FixtureRequest) -> Iterator[Stream]:
    made = Stream(tmp_path / "000001.log", scripted, getattr(request, "param", writers.EVERYSEC))
    yield made
    scripted.heal()
    assert made.writer.stop(SECONDS)


def calls(scripted: ScriptedFiles, name: str) -> list[int]:
    """The descriptors that a call was made with."""
    return [each[1] for each in scripted.record if each[0] == name]


def test_the_first_frame_is_what_it_always_was(stream: Stream) -> None:
    stream.put(b"abc")
    stream.until(lambda: stream.writer.written == 1)
    assert written(stream.path)[log_format.HEADER_SIZE :] == GOLDEN


@pytest.mark.parametrize("stream", [writers.NO, writers.EVERYSEC, writers.ALWAYS], indirect=True)
def test_what_is_added_is_written_in_its_order_and_durable_if_the_policy_says(stream: Stream) -> None:
    sent = [b"%d" % number * (number % 90) for number in range(500)] + [b"x" * 3_000_000, b"", b"last"]
    for payload in sent:
        stream.put(payload)
    stream.until(lambda: stream.writer.written == len(sent))
    assert stream.payloads() == sent
    if stream.writer.policy != writers.NO:
        stream.until(lambda: stream.writer.durable == len(sent))


@pytest.mark.parametrize("stream", [writers.BULK], indirect=True)
def test_the_writer_of_a_base_is_not_woken_for_every_frame(stream: Stream) -> None:
    """Who is woken takes the core of somebody, the loop maybe: a base is written by the megabyte."""
    sent = [b"%06d" % number * 6_667 for number in range(60)]
    stream.put(*sent[:25])
    assert stream.writer.figures()["written_by_thread"] == 0
    stream.put(*sent[25:])
    assert stream.writer.figures()["written_by_thread"] > 0
    stream.writer.sync()
    stream.until(lambda: stream.writer.settled)
    assert stream.payloads() == sent


@pytest.mark.parametrize("stream", [writers.ALWAYS], indirect=True)
def test_frames_share_the_sync_after_the_one_that_runs(stream: Stream, scripted: ScriptedFiles) -> None:
    scripted.slow("fdatasync", 0.1)
    for number in range(100):
        stream.put(b"%d" % number)
        time.sleep(0.0005)
    stream.until(lambda: stream.writer.durable == 100)
    assert len(calls(scripted, "fdatasync")) <= 60 and stream.payloads() == [b"%d" % n for n in range(100)]


@pytest.mark.parametrize("stream", [writers.NO, writers.ALWAYS], indirect=True)
def test_a_file_ends_synced_and_cut_before_anything_of_the_next_is_durable(
    stream: Stream, scripted: ScriptedFiles, tmp_path: Path
) -> None:
    stream.put(b"one", b"two")
    ended = stream.writer.switch(stream.open(tmp_path / "000002.log"), SALT)
    stream.put(b"three")
    stream.writer.sync()
    stream.until(lambda: stream.writer.durable == 3)
    assert stream.payloads() == [b"one", b"two"] and stream.payloads(tmp_path / "000002.log") == [b"three"]
    assert stream.path.stat().st_size == ended
    syncs = calls(scripted, "fdatasync")
    assert syncs and sorted(syncs) == syncs, "the older file is synced first"
    assert calls(scripted, "ftruncate") == syncs[:1]
    assert stream.path.stat().st_blocks * 512 < 100_000, "what was reserved is given back"


def test_a_full_disk_keeps_what_was_added_and_goes_on_with_whole_frames(
    stream: Stream, scripted: ScriptedFiles
) -> None:
    stream.put(b"before")
    stream.until(lambda: stream.writer.written == 1)
    scripted.fail("fallocate", errno.ENOSPC, times=-1)
    scripted.shorten("pwrite", 25, times=1)
    scripted.fail("pwrite", errno.ENOSPC, times=-1)
    stream.put(b"while" * 100)
    stream.until(lambda: stream.trouble == "full")
    stream.put(b"more")
    stream.until(lambda: "ftruncate" in {each[0] for each in scripted.record})
    assert stream.payloads() == [b"before"], "no partial frame stays"
    assert stream.writer.written == 1 and stream.writer.queued > 500
    scripted.heal()
    stream.until(lambda: stream.writer.written == 3 and stream.trouble == "ok")
    assert stream.payloads() == [b"before", b"while" * 100, b"more"]


def reserved(scripted: ScriptedFiles) -> int:
    """Up to where there is room in the file: it depends on who wrote first, the loop or its thread."""
    return max((call[2] + call[3] for call in scripted.record if call[0] == "fallocate" and call[-1] >= 0), default=0)


def test_room_is_missed_before_a_frame_needs_it(stream: Stream, scripted: ScriptedFiles) -> None:
    stream.put(b"before")
    stream.until(lambda: stream.writer.written == 1 and reserved(scripted))
    scripted.fail("fallocate", errno.EDQUOT, times=-1)
    # It fits what is reserved, and leaves so little of it that more is asked for.
    stream.put(b"v" * (reserved(scripted) - 2_000_000))
    stream.until(lambda: stream.trouble == "full")
    stream.until(lambda: stream.writer.written == 2)
    assert stream.writer.failure == ("fallocate", errno.EDQUOT) and stream.writer.queued == 0
    scripted.heal()
    stream.until(lambda: stream.trouble == "ok")


@pytest.mark.parametrize("stream", [writers.EVERYSEC, writers.ALWAYS], indirect=True)
def test_a_sync_that_fails_once_is_not_believed_when_it_succeeds(
    stream: Stream, scripted: ScriptedFiles, tmp_path: Path
) -> None:
    stream.put(b"one")
    stream.writer.sync()
    stream.until(lambda: stream.writer.durable == 1)
    scripted.fail("fdatasync", errno.EIO, times=1)
    stream.put(b"two")
    stream.until(lambda: stream.trouble == "broken")
    assert stream.writer.failure == ("fdatasync", errno.EIO)
    scripted.forget()
    stream.put(b"three")
    time.sleep(0.3)
    assert scripted.record == [] and stream.writer.durable == 1, "the file is not touched again"
    stream.writer.switch(stream.open(tmp_path / "000002.log"), SALT)
    assert stream.trouble == "ok"
    stream.put(b"four")
    stream.writer.sync()
    stream.until(lambda: stream.writer.durable == 4)
    assert stream.payloads(tmp_path / "000002.log") == [b"four"]


def test_a_write_that_fails_breaks_the_file(stream: Stream, scripted: ScriptedFiles) -> None:
    scripted.fail("pwrite", errno.EIO, times=-1)
    stream.put(b"one")
    stream.until(lambda: stream.trouble == "broken")
    assert stream.writer.written == 0 and stream.writer.queued == 0


def test_short_writes_go_on_where_they_ended(stream: Stream, scripted: ScriptedFiles) -> None:
    scripted.shorten("pwrite", 7, times=-1)
    stream.put(b"first", b"second" * 9)
    stream.until(lambda: stream.writer.written == 2)
    assert stream.payloads() == [b"first", b"second" * 9]


@pytest.mark.parametrize("stream", [writers.EVERYSEC, writers.ALWAYS], indirect=True)
def test_a_call_that_does_not_return_is_seen_and_the_way_back_too(stream: Stream, scripted: ScriptedFiles) -> None:
    scripted.slow("fdatasync", 3.0, times=1)
    stream.put(b"one")
    stream.writer.sync()
    stream.until(lambda: stream.trouble == "stalled")
    began = time.monotonic()
    for _ in range(100):
        stream.put(b"meanwhile")
    assert time.monotonic() - began < 2, "nobody waits for the disk"
    stream.until(lambda: stream.trouble == "ok")
    stream.writer.sync()
    stream.until(lambda: stream.writer.durable == 101)


def test_everysec_syncs_once_a_second_and_not_when_nothing_comes(stream: Stream, scripted: ScriptedFiles) -> None:
    began = time.monotonic()
    while time.monotonic() < began + 1.6:
        stream.put(b"frame")
        time.sleep(0.01)
    stream.until(lambda: stream.writer.durable == stream.writer.sequence)
    syncs = len(calls(scripted, "fdatasync"))
    assert 2 <= syncs <= time.monotonic() - began + 2
    time.sleep(1.3)
    assert len(calls(scripted, "fdatasync")) == syncs


def test_a_stricter_policy_makes_durable_what_was_written_before(stream: Stream) -> None:
    stream.writer.set_policy(writers.NO)
    stream.put(b"one", b"two")
    stream.until(lambda: stream.writer.written == 2)
    assert stream.writer.durable == 0
    stream.writer.set_policy(writers.ALWAYS)
    stream.until(lambda: stream.writer.durable == 2)


def test_a_mark_says_once_that_everything_is_durable(stream: Stream) -> None:
    stream.writer.mark(5)
    assert len(written(stream.path)) == log_format.HEADER_SIZE, "nothing came yet"
    stream.put(b"one")
    stream.writer.mark(5)
    stream.writer.sync()
    stream.until(lambda: stream.writer.durable == 1)
    for _ in range(3):
        stream.writer.mark(6)
    stream.until(lambda: stream.writer.queued == 0)
    data = written(stream.path)[log_format.HEADER_SIZE :]
    assert data[43:] == frame(log_format.MARK, b"", 1, SALT, log_format.HEADER_SIZE + 43, now_ms=6)


def test_a_sync_that_is_asked_for_comes_although_writing_never_rests(stream: Stream, scripted: ScriptedFiles) -> None:
    stream.writer.set_policy(writers.NO)
    scripted.slow("pwrite", 0.01, times=-1)
    stream.put(b"first")
    stream.writer.sync()
    until = time.monotonic() + SECONDS
    while stream.writer.durable < 1:
        assert time.monotonic() < until
        stream.put(b"more")
        time.sleep(0.001)
    assert stream.writer.durable < stream.writer.sequence
