"""Logs and bases made by hand: for tests of those who read them.

`LiveDump` is the side that writes, in plain Python after format.pxd: a shard that goes on executing while its base is written
in slices. It makes of every run a log (a list of frames) and a base.
"""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kache.shard.engine.engine import Keyspace, image_of, records_of
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.files import Files
from kache.shard.log.format import FileHeader, check_of, frame, pack_header
from kache.shard.log.manifest import BaseFile, LogFile, Manifest
from kache.shard.shard import Shard
from kache.slots import slot_of_key

SEED = bytes(16)
CLUSTER = b"cluster of tests"
SLOTS = 16384


def number(value: int) -> bytes:
    """v, LEB128"""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    """zigzag v"""
    return number((value << 1) ^ (value >> 63))


def counted(data: bytes) -> bytes:
    """v size | bytes"""
    return number(len(data)) + data


def written(path: Path) -> bytes:
    """What was written of a file; an open one goes on in zeros, where room is reserved for more."""
    data, end = path.read_bytes(), log_format.HEADER_SIZE
    while data[end : end + 2] == b"FK":
        end += 40 + int.from_bytes(data[end + 4 : end + 8], "little")
    assert not any(data[end:]), f"{path} has more than frames behind byte {end}"
    return data[:end]


@dataclass
class Record:
    """One frame to be: of the log, or of the base as of a sequence."""

    kind: int
    sequence: int
    now_ms: int
    payload: bytes
    behind: int = 0


@dataclass
class Written:
    """A file of a log or base: its frames, and how they lie on disk."""

    kind: int
    number: int
    first: int
    frames: list[Record] = field(default_factory=list)
    salt: bytes = field(default_factory=lambda: os.urandom(16))
    seed: bytes = SEED
    shard: int = 0
    shards: int = 1
    cluster: bytes = CLUSTER

    @property
    def name(self) -> str:
        return (manifests.log_name if self.kind == log_format.LOG else manifests.base_name)(self.number)

    def header(self) -> bytes:
        return pack_header(
            FileHeader(
                kind=self.kind,
                salt=self.salt,
                cluster=self.cluster,
                shard=self.shard,
                shards=self.shards,
                number=self.number,
                first=self.first,
                created_ms=1,
                hash_seed=self.seed,
            )
        )

    def data(self) -> bytes:
        out = bytearray(self.header())
        for each in self.frames:
            out += frame(
                each.kind, each.payload, each.sequence, self.salt, len(out), now_ms=each.now_ms, behind=each.behind
            )
        return bytes(out)

    def ends(self) -> list[int]:
        """Where each frame ends."""
        at, found = log_format.HEADER_SIZE, []
        for each in self.frames:
            at += 40 + len(each.payload)
            found.append(at)
        return found

    def close(self) -> Written:
        """END, or BASE_END, behind the last frame."""
        last = self.frames[-1] if self.frames else Record(0, self.first, 1, b"")
        if self.kind == log_format.LOG:
            body = len(self.frames).to_bytes(8, "little") + (self.ends() or [128])[-1].to_bytes(8, "little")
            self.frames.append(Record(log_format.END, last.sequence, last.now_ms, body))
        else:
            body = (0).to_bytes(8, "little") + len(self.frames).to_bytes(8, "little")
            self.frames.append(Record(log_format.BASE_END, last.sequence, last.now_ms, body))
        return self


def write_directory(
    path: Path, bases: list[Written], logs: list[Written], *, closed: bool = False, stopped_ms: int = 0
) -> Manifest:
    """A shard's directory with these files and their manifest. `closed`: the last log has its length there."""
    path.mkdir(parents=True, exist_ok=True)
    base_files, log_files = [], []
    for base in bases:
        (path / base.name).write_bytes(base.data())
        end = base.frames[-1].sequence if base.frames else base.first
        base_files.append(
            BaseFile(base.number, base.name, len(base.data()), base.first, max(end, base.first), base.salt.hex())
        )
    for at, log in enumerate(logs):
        (path / log.name).write_bytes(log.data())
        is_open = at == len(logs) - 1 and not closed
        log_files.append(LogFile(log.number, log.name, None if is_open else len(log.data()), log.first, log.salt.hex()))
    whole = Manifest(tuple(base_files), tuple(log_files), stopped_ms)
    manifests.write(Files(), str(path), whole)
    return whole


def place_of(key: bytes, seed: bytes = SEED) -> tuple[int, int]:
    """(slot, prefix of the hash): the order of a base."""
    return slot_of_key(key), check_of(key, seed) >> 16


@dataclass
class _Later:
    """A key that the base delivers later, on the writing side."""

    value: Any = None
    """The collection that is being written, to see when it is another one."""
    cursor: int = 0
    """Where the next part begins; of a list: how many elements are written."""
    length: int = 0
    begun: bool = False


class LiveDump:
    """A shard that records, and at the same time is dumped in slices.

    `log` has its frames, numbered from `first` + 1; `base` what the dump has written.
    """

    def __init__(
        self, shard: Shard, now_ms: int, *, first: int = 0, large: int = 4, seed: bytes = SEED, draw: random.Random
    ) -> None:
        self.shard = shard
        self.seed = seed
        self.large = large
        self.draw = draw
        self.sequence = first
        self.now_ms = now_ms
        self.log = Written(log_format.LOG, 1, first + 1, seed=seed)
        self.base = Written(log_format.BASE, 1, first, seed=seed)
        self.cursors = [(0, 0)] * 16
        self.later: list[dict[bytes, _Later]] = [{} for _ in range(16)]
        self.dumping = False
        self.seen: set[str] = set()
        """What has happened, for tests that want to know whether it did."""
        self.met: set[tuple[str, str]] = set()
        """(record, where the dump was with its key): undumped, dumped, later, or in parts."""
        shard.store.effects.record()

    # The log --------------------------------------------------------------------------------------------
    def end_frame(self, now_ms: int) -> None:
        """What was executed since the last call is a frame."""
        self.now_ms = now_ms
        frame_ms, records = self.shard.store.effects.take()
        if not records:
            return
        self.sequence += 1
        self.log.frames.append(Record(log_format.EFFECTS, self.sequence, frame_ms, records, self.sequence))
        if self.dumping:
            for each in records_of(frame_ms, records):
                self._follow(*each)

    def _dumped(self, db: int, key: bytes) -> bool:
        return place_of(key, self.seed) < self.cursors[db]

    def _where(self, db: int, key: bytes) -> str:
        if key in self.later[db]:
            return "in parts" if self.later[db][key].begun else "later"
        return "dumped" if self._dumped(db, key) else "undumped"

    def _follow(self, name: str, db: int, _now: int, key: bytes | None, arguments: list[Any]) -> None:
        if key is not None:
            self.met.add((name, self._where(db, key)))
        if name == "swap":
            left, right = arguments
            both: tuple[Any, Any] = (self.cursors, self.later)  # lists of different things
            for kept in both:
                kept[left], kept[right] = kept[right], kept[left]
        elif name in ("rename", "move", "copy"):
            assert key is not None
            target = arguments[0] if name != "move" else key
            other = {"rename": db, "move": arguments[0], "copy": arguments[-1]}[name]
            here = self._dumped(db, key) and key not in self.later[db]
            if not here and (db, key) != (other, target) and self._dumped(other, target):
                self.later[other].setdefault(target, _Later())
                self.seen.add(f"{name} to later")
        elif key in self.later[db] and name.startswith("list_"):
            self._follow_list(self.later[db][key], name, arguments)

    @staticmethod
    def _follow_list(later: _Later, name: str, arguments: list[Any]) -> None:
        count = len(arguments)
        if name == "list_push_left":
            later.length += count
            later.cursor += count if later.cursor else 0
        elif name == "list_push_right":
            later.length += count
        elif name == "list_pop_left":
            later.length -= arguments[0]
            later.cursor -= min(arguments[0], later.cursor)
        elif name == "list_pop_right":
            later.length -= arguments[0]
            later.cursor = min(later.cursor, later.length)
        elif name == "list_insert":
            later.length += 1
            later.cursor += arguments[0] < later.cursor
        elif name == "list_delete_range":
            at, n = arguments
            n = min(n, later.length - at)
            later.length -= n
            if at < later.cursor:
                later.cursor -= min(n, later.cursor - at)

    def reach(self, where: str, key: bytes) -> None:
        """Goes on until the dump is there with a key of database 0, which has elements."""
        for db in range(16):
            while where != "undumped" and self.cursors[db] < (SLOTS, 0):
                self._walk(db)
        if where == "in parts":
            self._deliver(0, key)
        assert self._where(0, key) == where

    # The base -------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """The dump begins; the log is closed behind what was executed so far, which it does not need."""
        self.base.first = self.sequence
        self.dumping = True

    def _put(self, kind: int, payload: bytes) -> None:
        self.base.frames.append(Record(kind, self.sequence, self.now_ms, payload))

    def slice(self) -> bool:
        """Some of it; False when there is nothing left to write."""
        walking = [db for db in range(16) if self.cursors[db] < (SLOTS, 0)]
        owed = [
            (db, key) for db in range(16) for key in self.later[db] if not walking or db < walking[0] or db in walking
        ]
        if walking and (not owed or self.draw.random() < 0.6):
            self._walk(walking[0])
        elif owed:
            self._deliver(*self.draw.choice(owed))
        return bool(walking or any(self.later))

    def _walk(self, db: int) -> None:
        keys = Keyspace(self.shard.store, db)
        todo = sorted((place_of(key, self.seed), key) for key in sorted(keys.keys()))
        todo = [(place, key) for place, key in todo if place >= self.cursors[db]]
        some = todo[: self.draw.choice((0, 1, 3, 8))]
        if len(some) == len(todo):
            after = (SLOTS, 0) if self.draw.random() < 0.7 else self.cursors[db]
            some = some if after == (SLOTS, 0) else []
        else:
            after = todo[len(some)][0] if self.draw.random() < 0.5 or not some else (some[-1][0][0], some[-1][0][1] + 1)
        self.cursors[db] = max(after, self.cursors[db])
        payload = number(db) + number(self.cursors[db][0]) + number(self.cursors[db][1])
        for (slot, _), key in some:
            entry = self._entry(keys, key)
            if entry is not None:
                payload += number(db) + number(slot) + number(3) + number(1) + entry
        self._put(log_format.VALUES, payload)

    def _size(self, keys: Keyspace, key: bytes) -> int:
        return 0 if keys.type_of(key) == "string" else keys.elements_of(key)

    def _entry(self, keys: Keyspace, key: bytes) -> bytes | None:
        if self._size(keys, key) > self.large:
            self.later[keys.db][key] = _Later()
            return bytes([64]) + counted(key)
        found = image_of(keys, key)
        return None if found is None else self._image(key, found[1])

    def _image(self, key: bytes, image: bytes) -> bytes:
        kind, deadline, body = self._taken_apart(image)
        if kind & 7 == 0:  # v size | v offset | v length | bytes
            body = body[len(number(_first_number(body))) + 1 :]
        tag = kind | (16 if deadline else 0)
        time = zigzag(deadline - self.now_ms) if deadline else b""
        return bytes([tag]) + counted(key) + (77).to_bytes(4, "little") + time + body

    @staticmethod
    def _taken_apart(image: bytes) -> tuple[int, int, bytes]:
        """(kind without the flag, deadline, body)"""
        kind, body = image[0], image[1:]
        if not kind & 16:
            return kind, 0, body
        deadline = _first_number(body)
        return kind & ~16, deadline >> 1, body[len(number(deadline)) :]

    def _deliver(self, db: int, key: bytes) -> None:
        """The next part of a later key; its image if it is small now; or that it is gone."""
        keys = Keyspace(self.shard.store, db)
        later = self.later[db][key]
        kind = keys.type_of(key)
        slot = slot_of_key(key)
        cursor = number(db) + number(self.cursors[db][0]) + number(self.cursors[db][1])
        head = cursor + number(db) + number(slot) + number(0) + number(1)
        value = self._value(keys, key, kind)
        if kind is None or (kind not in ("string", "stream") and not value):
            del self.later[db][key]
            self.seen.add("gone")
            self._put(log_format.VALUES, head + bytes([65]) + counted(key))
        elif kind == "string" or (value is not later.value and self.draw.random() < 0.2):
            found = image_of(keys, key)
            assert found is not None
            del self.later[db][key]
            self.seen.add("later as a whole")
            self._put(log_format.VALUES, head + self._image(key, found[1]))
        else:
            first = not later.begun or value is not later.value
            self.seen.add(f"{kind} in parts")
            if first:
                self.seen.update(["begun anew"] if later.begun else [])
                later.value, later.cursor, later.begun, later.length = value, 0, True, len(value)
            self._put_part(keys, key, kind, later, first)

    @staticmethod
    def _value(keys: Keyspace, key: bytes, kind: str | None) -> Any:
        get = {"list": keys.list_get, "hash": keys.hash_get, "set": keys.set_get, "zset": keys.zset_get}
        get["stream"] = keys.stream_get
        return get[kind](key) if kind in get else None

    def _put_part(self, keys: Keyspace, key: bytes, kind: str, later: _Later, first: bool) -> None:
        at = later.cursor if kind == "list" else 0
        most = self.draw.choice((1, 1, 2, 5))
        if kind == "zset":
            following, pairs = later.value.scan(later.cursor, most)
            scored = b"".join(struct.pack("<d", score) + counted(member) for member, score in pairs)
            part = bytes([4]) + number(len(later.value)) + number(len(pairs)) + scored
        else:
            found = image_of(keys, key, later.cursor, 1 << 30, most)
            assert found is not None
            following, part = found
            tag, _, body = self._taken_apart(part)
            part = bytes([tag]) + body
        last = following == 0
        if kind == "list":
            following = min(later.cursor + most, later.length)
        flags = (1 if first else 0) | (2 if last else 0)
        payload = number(keys.db) + counted(key) + number(at) + bytes([flags])
        if last:
            deadline = max(keys.deadline_of(key) or 0, 0)
            payload += (78).to_bytes(4, "little") + zigzag(deadline - self.now_ms if deadline else 0)
            del self.later[keys.db][key]
        later.cursor = following
        self._put(log_format.PART, payload + part)


def _first_number(data: bytes) -> int:
    value = 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return value
    raise ValueError("a number that does not end")
