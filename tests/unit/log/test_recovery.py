"""Recovery: logs and bases made by hand, whole, torn, damaged at every byte, of another version."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from log_files import LiveDump, Record, Written, counted, number, write_directory
from state import state

from kache.cluster.transactions import Share
from kache.shard.engine.engine import Keyspace, Store
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.files import Files
from kache.shard.log.format import LogError
from kache.shard.log.recovery import Recovery, shares_of
from kache.shard.shard import Shard

NOW = 1_700_000_000_000
EVERY_BYTE = bool(os.environ.get("KACHE_EXPLORE"))


def load(path: Path, **options: Any) -> tuple[Store, Recovery]:
    """A store with what the directory holds."""
    files = Files()
    found = manifests.read(files, str(path))
    assert found is not None
    store = Store()
    recovery = Recovery(files, str(path), store, found, **options)
    try:
        while recovery.step(1000):
            pass
    finally:
        recovery.close()
    store.check()
    return store, recovery


def strings(store: Store) -> dict[bytes, bytes | None]:
    keys = Keyspace(store, 0)
    return {key: keys.string_get(key) for key in sorted(keys.keys())}


def set_record(key: bytes, value: bytes) -> bytes:
    return bytes([8]) + counted(key) + counted(value)


def counting(frames: int, *, behind: int | None = None, first: int = 1, log_number: int = 1) -> Written:
    """A log of that many frames, each of which sets k to its number, and its own key."""
    log = Written(log_format.LOG, log_number, first)
    for at in range(first, first + frames):
        payload = set_record(b"k", b"%d" % at) + set_record(b"k%03d" % at, b"value %d" % at)
        log.frames.append(Record(log_format.EFFECTS, at, NOW + at, payload, at if behind is None else behind))
    return log


def kept(store: Store) -> int:
    """How many frames of `counting` are there, all of them whole."""
    found = strings(store)
    count = int(found.get(b"k") or b"0")
    assert found == ({b"k": b"%d" % count} if count else {}) | {b"k%03d" % at: b"value %d" % at for at in range(1, count + 1)}  # fmt: skip
    return count


def test_a_log_is_loaded(tmp_path: Path) -> None:
    write_directory(tmp_path, [], [counting(100)])
    store, recovery = load(tmp_path)
    assert kept(store) == 100
    assert (recovery.last, recovery.last_ms, recovery.cut, recovery.done) == (100, NOW + 100, None, recovery.total)
    closed = recovery.manifest_after().logs[0]
    assert (closed.name, closed.bytes) == ("000001.log", (tmp_path / "000001.log").stat().st_size)


def test_several_logs_are_one(tmp_path: Path) -> None:
    first, second, third = counting(10), counting(10, first=11, log_number=2), counting(5, first=21, log_number=4)
    write_directory(tmp_path, [], [first.close(), second, third])
    store, recovery = load(tmp_path)
    assert (kept(store), recovery.last) == (25, 25)


def test_a_log_without_effects_is_not_kept(tmp_path: Path) -> None:
    """A start after the other that changes nothing would else leave a file each; one that ends torn is kept as it lies."""
    idle = [Written(log_format.LOG, number, 11) for number in (2, 3, 4)]
    idle[0].frames.append(Record(log_format.MARK, 10, NOW, b""))
    write_directory(tmp_path, [], [counting(10).close(), *idle])
    store, recovery = load(tmp_path)
    assert (kept(store), recovery.last) == (10, 10)
    assert [log.name for log in recovery.manifest_after().logs] == ["000001.log"]
    with open(tmp_path / "000004.log", "ab") as file:
        file.write(b"torn")
    store, recovery = load(tmp_path)
    assert kept(store) == 10 and recovery.cut is not None and recovery.cut.dropped == 4
    assert [log.name for log in recovery.manifest_after().logs] == ["000001.log", "000004.log"]


@pytest.mark.parametrize("seed", range(12))
def test_a_base_with_its_log(tmp_path: Path, seed: int) -> None:
    """Written under load, closed and cut into several logs anywhere; loaded in slices of nothing."""
    draw = random.Random(seed)
    shard = Shard(now_ms=NOW)
    live = LiveDump(shard, NOW, draw=draw, first=draw.choice((0, 500)))
    shard_commands(shard, draw, 50)
    live.end_frame(NOW)
    live.begin()
    while live.slice():
        shard_commands(shard, draw, 2)
        live.end_frame(NOW)
    live.base.close()
    shard_commands(shard, draw, 30)
    live.end_frame(NOW)
    logs = split(live.log, draw)
    write_directory(tmp_path, [live.base], logs, closed=draw.random() < 0.5)
    store, recovery = load(tmp_path)
    assert state(store) == state(shard.store)
    assert recovery.last == live.sequence


def shard_commands(shard: Shard, draw: random.Random, count: int) -> None:
    for _ in range(count):
        key = b"%d" % draw.randrange(40)
        shard.execute(
            draw.choice(
                [
                    [b"SET", b"s" + key, draw.randbytes(10)],
                    [b"RPUSH", b"l" + key, *(b"%d" % n for n in range(draw.randint(1, 9)))],
                    [b"SADD", b"m" + key, *(b"%d" % draw.randrange(20) for _ in range(5))],
                    [b"DEL", b"s" + key, b"l" + key],
                ]
            )
        )


def split(log: Written, draw: random.Random) -> list[Written]:
    """The same frames in one to three files."""
    pieces: list[Written] = []
    frames, first = list(log.frames), log.first
    count = draw.randint(1, 3)
    for at in range(count):
        size = draw.randint(0, len(frames)) if at < count - 1 else len(frames)
        pieces.append(Written(log_format.LOG, 3 * at + 1, first))
        pieces[-1].frames, frames = frames[:size], frames[size:]
        first += size
    return pieces


def test_a_base_without_the_log_it_needs_is_refused(tmp_path: Path) -> None:
    base = Written(log_format.BASE, 1, 0)
    base.frames = [Record(log_format.VALUES, 3, NOW, number(0) + number(16384) + number(0))]
    write_directory(tmp_path, [base.close()], [counting(2)])
    with pytest.raises(
        LogError, match=r"000001.base is damaged at byte .*the effects up to 3, and the log ends with 2"
    ):
        load(tmp_path)


# CHECKS 4: a last file cut at every byte of its last three frames -----------------------------------------
def test_every_cut_of_the_last_three_frames_keeps_what_is_whole(tmp_path: Path) -> None:
    log = counting(12)
    whole = write_directory(tmp_path, [], [log])
    data, ends = log.data(), log.ends()
    for size in range(ends[8], len(data) + 1):
        (tmp_path / log.name).write_bytes(data[:size])
        store, recovery = load(tmp_path)
        frames = sum(end <= size for end in ends)
        assert kept(store) == frames
        if size == ends[frames - 1]:
            assert recovery.cut is None
        else:
            cut = recovery.cut
            assert cut is not None
            assert (cut.path, cut.offset, cut.dropped) == (
                str(tmp_path / log.name),
                ends[frames - 1],
                # Zeros at the very end may have been reserved: they are not counted.
                len(data[ends[frames - 1] : size].rstrip(b"\0")),
            )
            # The next log follows on, and the one after a second restart.
            after = recovery.manifest_after()
            more = counting(2, first=frames + 1, log_number=2)
            (tmp_path / more.name).write_bytes(more.data())
            logs = (*after.logs, manifests.LogFile(2, more.name, None, frames + 1, more.salt.hex()))
            manifests.write(Files(), str(tmp_path), manifests.Manifest((), logs))
            store, recovery = load(tmp_path)
            assert (kept(store), recovery.cut) == (frames + 2, None)
            manifests.write(Files(), str(tmp_path), whole)
    with pytest.raises(LogError, match=r"ends at byte .*--fix"):
        (tmp_path / log.name).write_bytes(data[:-1])
        load(tmp_path, strict=True)


# CHECKS 5: every byte of a file of a hundred frames --------------------------------------------------------
def test_every_flipped_byte_is_refused_or_cuts_the_last_frame(tmp_path: Path) -> None:
    """Each frame says that the one before it was durable: as under `always`."""
    log = counting(100, behind=1)
    write_directory(tmp_path, [], [log])
    data, ends = bytearray(log.data()), log.ends()
    draw = random.Random(7)
    slowest = 0.0
    # Every byte of some frames, and all of them where time does not matter.
    whole = (
        set(range(len(data) if EVERY_BYTE else 300)) | set(range(ends[96], len(data))) | set(range(0, len(data), 41))
    )
    for at in sorted(whole):
        flipped = data[at] ^ (1 << draw.randrange(8))
        data[at], flipped = flipped, data[at]
        (tmp_path / log.name).write_bytes(data)
        began = time.monotonic()
        if at < ends[98]:
            with pytest.raises(LogError) as refused:
                load(tmp_path)
            assert refused.value.path == str(tmp_path / log.name)
            frame_at = max([128, *(end for end in ends if end <= at)]) if at >= 128 else 0
            assert refused.value.offset == frame_at
        else:
            store, recovery = load(tmp_path)
            assert kept(store) == 99
            assert recovery.cut is not None and recovery.cut.offset == ends[98]
            with pytest.raises(LogError, match="--fix"):
                load(tmp_path, strict=True)
        slowest = max(slowest, time.monotonic() - began)
        data[at] = flipped
    assert slowest < 1


def test_what_was_not_durable_may_be_missing_in_the_middle(tmp_path: Path) -> None:
    """Pages reach the disk in any order: whole frames behind a hole, none of which says that the hole was durable."""
    log = counting(50)
    write_directory(tmp_path, [], [log])
    data = bytearray(log.data())
    hole = log.ends()[29]
    data[hole + 3 : hole + 60] = bytes(57)
    (tmp_path / log.name).write_bytes(data)
    store, recovery = load(tmp_path)
    assert kept(store) == 30
    assert recovery.cut is not None
    assert (recovery.cut.offset, recovery.cut.dropped, recovery.cut.frames) == (hole, len(data) - hole, 19)


@pytest.mark.parametrize("closed", [True, False])
def test_a_hole_that_was_durable_is_damage(tmp_path: Path, closed: bool) -> None:
    """A watermark says so in a later file, or the manifest, by giving the length of the file."""
    first, second = counting(30), counting(10, first=31, log_number=2, behind=5 if not closed else None)
    write_directory(tmp_path, [], [first, second])
    data = bytearray(first.data())
    data[first.ends()[20] + 10] ^= 1
    (tmp_path / first.name).write_bytes(data)
    if not closed:
        whole = manifests.read(Files(), str(tmp_path))
        assert whole is not None
        logs = (manifests.LogFile(1, first.name, None, 1, first.salt.hex()), whole.logs[1])
        manifests.write(Files(), str(tmp_path), manifests.Manifest((), logs))
    with pytest.raises(LogError, match=r"damaged at byte \d+: the effects 22 cannot be read") as refused:
        load(tmp_path)
    assert refused.value.offset == first.ends()[20]


def test_a_lost_file_between_two_others_is_damage(tmp_path: Path) -> None:
    first, third = counting(10), counting(10, first=16, log_number=3, behind=0)
    write_directory(tmp_path, [], [first, third])
    with pytest.raises(LogError, match="the effects 11 cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("size", [1, 4096, 3_000_000])
def test_zeros_at_the_end_were_reserved_and_not_written(tmp_path: Path, size: int, ended: bool) -> None:
    """A log that was open when everything was killed, also one whose end was written and not cut yet: nothing is missing."""
    log, following = counting(5), counting(3, first=6, log_number=2)
    write_directory(tmp_path, [], [log.close() if ended else log, following])
    whole = manifests.read(Files(), str(tmp_path))
    assert whole is not None
    logs = (msgspec.structs.replace(whole.logs[0], bytes=None), whole.logs[1])
    manifests.write(Files(), str(tmp_path), manifests.Manifest((), logs))
    for name in (log.name, following.name):
        with open(tmp_path / name, "ab") as file:
            file.write(bytes(size))
    store, recovery = load(tmp_path, strict=True)
    assert kept(store) == 8 and recovery.cut is None and recovery.done == recovery.total
    assert [each.bytes for each in recovery.manifest_after().logs] == [len(log.data()), len(following.data())]


def test_zeros_behind_a_torn_frame_are_not_counted(tmp_path: Path) -> None:
    log = counting(5)
    write_directory(tmp_path, [], [log])
    with open(tmp_path / log.name, "ab") as file:
        file.write(log.data()[log.ends()[3] : log.ends()[4] - 5] + bytes(100_000))
    store, recovery = load(tmp_path)
    assert kept(store) == 5 and recovery.cut is not None
    assert recovery.cut.dropped == log.ends()[4] - log.ends()[3] - 5 and recovery.cut.frames == 0


def test_zeros_in_a_closed_log_are_damage(tmp_path: Path) -> None:
    log = counting(5)
    write_directory(tmp_path, [], [log])
    with open(tmp_path / log.name, "ab") as file:
        file.write(bytes(100))
    whole = manifests.read(Files(), str(tmp_path))
    assert whole is not None
    closed = (msgspec.structs.replace(whole.logs[0], bytes=len(log.data()) + 100),)
    manifests.write(Files(), str(tmp_path), manifests.Manifest((), closed))
    with pytest.raises(LogError, match="the effects 6 cannot be read"):
        load(tmp_path)


def test_a_value_that_contains_frames_is_a_value(tmp_path: Path) -> None:
    """Frames of this very log in a value: their place is wrong, and where it is torn they are not taken for its own."""
    inner = counting(3)
    log = Written(log_format.LOG, 1, 1, salt=inner.salt)
    log.frames = [Record(log_format.EFFECTS, 1, NOW, set_record(b"k", inner.data() * 2))]
    write_directory(tmp_path, [], [log])
    store, _ = load(tmp_path)
    assert strings(store) == {b"k": inner.data() * 2}
    (tmp_path / log.name).write_bytes(log.data()[:-1])
    store, recovery = load(tmp_path)
    assert strings(store) == {} and recovery.cut is not None and recovery.cut.frames == 0


def test_unreadable_values_and_keys_come_back(tmp_path: Path) -> None:
    odd = [b"", b" : \n\0\xff" * 9, "Schlüssel 鍵 🔑".encode(), b"k" * (10 << 20)]
    log = Written(log_format.LOG, 1, 1)
    log.frames = [Record(log_format.EFFECTS, at, NOW, set_record(key, key)) for at, key in enumerate(odd, 1)]
    write_directory(tmp_path, [], [log])
    store, _ = load(tmp_path)
    assert strings(store) == {key: key for key in odd}


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "reason"),
    [
        (5, 0, b"", "a frame of the unknown kind 5"),
        (32, 0, b"", "a frame of the unknown kind 32"),
        (16, 0, b"", "a frame of the unknown kind 16"),
        (1, 1, b"", "a frame of the unknown flags 1"),
        (1, 0, b"\x63\x01k", "the unknown kind 99"),
    ],
)
def test_what_a_newer_version_wrote_is_refused(
    tmp_path: Path, kind: int, flags: int, payload: bytes, reason: str
) -> None:
    log = counting(3)
    write_directory(tmp_path, [], [log])
    data = log.data()
    data += log_format.frame(kind, payload, 4, log.salt, len(data), now_ms=NOW, flags=flags)
    (tmp_path / log.name).write_bytes(data)
    with pytest.raises(LogError, match="was written by a newer Kache") as refused:
        load(tmp_path)
    assert reason in str(refused.value) and refused.value.newer


def test_files_of_another_time_are_refused(tmp_path: Path) -> None:
    log = counting(3)
    write_directory(tmp_path, [], [log])
    (tmp_path / log.name).write_bytes(counting(3).data())
    with pytest.raises(LogError, match="not the file that the manifest means"):
        load(tmp_path)
    (tmp_path / log.name).unlink()
    with pytest.raises(LogError, match=r"000001.log is missing, and the manifest names it.*check-aof"):
        load(tmp_path)


def test_the_sequence_does_not_go_back(tmp_path: Path) -> None:
    log = counting(3)
    log.frames += counting(2).frames
    write_directory(tmp_path, [], [log])
    with pytest.raises(LogError, match="the sequence goes back, from 3 to 1"):
        load(tmp_path)


# Transactions over shards --------------------------------------------------------------------------------
def share(transaction: int, shards: list[int], records: bytes) -> bytes:
    return number(transaction) + number(len(shards)) + b"".join(map(number, shards)) + records


def with_shares() -> Written:
    log = counting(2)
    log.frames += [
        Record(log_format.SHARE, 3, NOW + 3, share(70, [0, 2], set_record(b"t", b"seventy"))),
        Record(log_format.EFFECTS, 4, NOW + 4, bytes([120]) + number(70)),
        Record(log_format.SHARE, 5, NOW + 5, share(71, [0, 1], set_record(b"t", b"seventy-one"))),
    ]
    return log


def test_shares_are_reported_and_loaded(tmp_path: Path) -> None:
    whole = write_directory(tmp_path, [], [with_shares()])
    found = shares_of(Files(), str(tmp_path), whole)
    assert found.shares == (Share(70, (0, 2), 3, NOW + 3, True), Share(71, (0, 1), 5, NOW + 5, False))
    assert (found.base_ms, found.last_ms) == (0, NOW + 5)
    assert strings(load(tmp_path)[0])[b"t"] == b"seventy-one"


def test_a_share_is_skipped_or_the_log_ends_before_it(tmp_path: Path) -> None:
    write_directory(tmp_path, [], [with_shares()])
    store, recovery = load(tmp_path, skip=[71])
    assert strings(store)[b"t"] == b"seventy" and (recovery.last, recovery.skipped) == (5, 1)
    whole = recovery.manifest
    manifests.write(Files(), str(tmp_path), recovery.manifest_after())
    assert strings(load(tmp_path)[0])[b"t"] == b"seventy"
    manifests.write(Files(), str(tmp_path), whole)
    store, recovery = load(tmp_path, cut_at=3)
    assert b"t" not in strings(store)
    assert recovery.last == 2 and recovery.cut is not None and recovery.cut.frames == 3


def test_what_was_decided_is_not_reported_as_open(tmp_path: Path) -> None:
    """71 came behind the decision; 72 was left out by it."""
    log = with_shares()
    log.frames.insert(2, Record(log_format.SHARE, 3, NOW + 3, share(72, [0, 1], set_record(b"u", b"left out"))))
    for sequence, frame in enumerate(log.frames, 1):
        frame.sequence = sequence
    whole = msgspec.structs.replace(write_directory(tmp_path, [], [log]), skipped=(72,), resolved=5, decided=5)
    found = shares_of(Files(), str(tmp_path), whole)
    assert [each.transaction for each in found.shares] == [71]
    assert (found.before, found.skipped) == ({70}, {72})


def test_a_share_behind_a_torn_frame_is_none(tmp_path: Path) -> None:
    """Pages reach a disk in any order: whoever loads ends before it, so it is not reported."""
    log = with_shares()
    for frame in log.frames:
        frame.behind = frame.sequence
    whole = write_directory(tmp_path, [], [log])
    path = tmp_path / log.name
    data = bytearray(path.read_bytes())
    data[log.ends()[1] - 1] ^= 1
    path.write_bytes(data)
    assert shares_of(Files(), str(tmp_path), whole).shares == ()
    assert load(tmp_path)[1].last == 1


def test_shares_older_than_a_minute_are_not_asked_about(tmp_path: Path) -> None:
    log = with_shares()
    log.frames.append(Record(log_format.EFFECTS, 6, NOW + 60_004, set_record(b"k", b"v")))
    whole = write_directory(tmp_path, [], [log])
    assert [each.transaction for each in shares_of(Files(), str(tmp_path), whole).shares] == [71]


# Fuzz ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(150))
def test_mutated_files_are_refused_or_cut(tmp_path: Path, seed: int) -> None:
    """Mutations, with checks that fit so that they get past them: no crash, nothing allocated by a declared length."""
    draw = random.Random(seed)
    log = with_shares()
    for each in draw.sample(log.frames, draw.randint(1, 3)):
        damaged = bytearray(each.payload)
        for _ in range(draw.choice((1, 2, 8))):
            damaged[draw.randrange(len(damaged))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        each.payload = bytes(damaged)
    whole = write_directory(tmp_path, [], [log])
    for act in (lambda: load(tmp_path), lambda: shares_of(Files(), str(tmp_path), whole)):
        try:
            act()
        except (LogError, ValueError) as error:
            assert str(error)
