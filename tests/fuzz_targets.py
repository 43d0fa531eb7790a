"""What is fuzzed: functions of bytes that anybody may send or leave on a disk. Each returns, or raises for a defect.

    requests    a client's bytes in both protocols: the same requests however they are cut
    replies     a server's bytes for our clients, in both protocols
    link        a router's bytes for a shard: the link is closed, the shard lives and answers the next one
    log         the files of a shard: loaded up to where they are whole, or refused in a sentence
    rules       rules of ACL users, and files of them: what is taken can be described and taken again

`tests/soak/fuzz.py` runs them for long; `tests/unit/test_fuzz_targets.py` for an instant. Seeds are what is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from broken_requests import cuts, pipeline
from log_files import Record, counted, write_directory
from log_files import Written as WrittenLog

from kache.acl.file import AclFileError, users_of
from kache.acl.record import UserRecord
from kache.acl.rights import User
from kache.acl.rules import RuleError, UnmatchedError, apply, check_name, describe, words_of
from kache.client.codec import MORE, Reader
from kache.client.errors import ProtocolError
from kache.commands import BY_KEY
from kache.errors import KacheError
from kache.shard.engine.engine import Store
from kache.shard.log import format as log_format
from kache.shard.log import manifest as manifests
from kache.shard.log.files import Files
from kache.shard.log.format import LogError
from kache.shard.log.recovery import Recovery
from kache.wire.codec import ReplyTooShort, RequestParser, decode_reply, encode_reply

__all__ = ["TARGETS", "Target", "mutated"]


class Target(NamedTuple):
    """`run` takes any bytes; `seeds` makes some that are right."""

    run: Callable[[bytes], None]
    seeds: Callable[[random.Random], bytes]


# Requests -------------------------------------------------------------------------------------------------------------
NEED_MORE = 0
MOST_REQUESTS = 1000


def _requests(data: bytes, kind: str, sizes: list[int]) -> list[object]:
    """What a parser makes of the bytes, given in pieces of these sizes and then the rest; its error ends it."""
    parser = RequestParser()
    parser.max_bulk = parser.max_frame = 1 << 20
    found: list[object] = []
    held, at = b"", 0
    for size in [*sizes, len(data)]:
        held += data[at : at + size]
        at += size
        while held and len(found) < MOST_REQUESTS:
            state, words, consumed = parser.parse(held, kind)
            if state < NEED_MORE:
                return [*found, parser.error]
            if state == NEED_MORE:
                break
            assert 0 < consumed <= len(held), "a request of no bytes, or of more than there are"
            found.append((state, words))
            held = held[consumed:]
    return found


def requests(data: bytes) -> None:
    """The first byte chooses the protocol and how the rest is cut."""
    if not data:
        return
    kind = ("resp", "binary", "inline")[data[0] % 3]
    rest = data[1:]
    dice = random.Random(data[0])
    assert _requests(rest, kind, []) == _requests(rest, kind, cuts(dice, min(len(rest), 500))), (
        "it depends on the pieces"
    )


def a_request(dice: random.Random) -> bytes:
    binary = dice.random() < 0.5
    return bytes([1 if binary else 0]) + pipeline(dice, speak_binary=binary)


# Replies --------------------------------------------------------------------------------------------------------------
def replies(data: bytes) -> None:
    """The first byte chooses who reads."""
    if not data:
        return
    if data[0] % 2:
        reader = Reader(decode=bool(data[0] & 2))
        reader.feed(data[1:])
        with contextlib.suppress(ProtocolError, UnicodeDecodeError):
            while reader.next_reply() is not MORE:
                pass
        return
    at = 1
    with contextlib.suppress(ReplyTooShort, ValueError):
        while at < len(data):
            _value, end = decode_reply(data, at)
            assert at < end <= len(data), "a reply beyond what came"
            at = end


def a_reply(dice: random.Random) -> bytes:
    def value(depth: int) -> object:
        which = dice.randrange(8 if depth < 3 else 5)
        if which < 5:
            return (None, dice.randrange(-(2**63), 2**63), b"x" * dice.randrange(40), dice.random(), True)[which]
        many = [value(depth + 1) for _ in range(dice.randrange(5))]
        return dict(enumerate(many)) if which == 7 else many

    dialect = dice.choice((0, 2, 3))
    return bytes([1 if dialect == 0 else 0]) + b"".join(encode_reply(value(0), dialect) for _ in range(3))


# The link -------------------------------------------------------------------------------------------------------------
def link(data: bytes) -> None:
    """A shard of its own, greeted, gets the bytes; then another router asks it something. (Slots are what a router says: they
    trust each other.)"""
    from test_shard_link import Peer

    async def body() -> None:
        peer = Peer()
        try:
            await peer.greet()
            with contextlib.suppress(ConnectionError):
                await peer.send(data[:60_000])
            for _ in range(3):
                await asyncio.sleep(0)
            peer.sock.close()
            peer.sock, peer.buffer = peer.connect(), bytearray()
            await peer.greet()
            await peer.send(_run_of_a_ping())
            while (await peer.message())[0] != 5:  # REPLY
                pass
        finally:
            peer.close()

    asyncio.run(asyncio.wait_for(body(), 30))


def _run_of_a_ping() -> bytes:
    from test_shard_link import frame, run_of

    return run_of([frame("exists", b"fuzz")])


def a_run(dice: random.Random) -> bytes:
    from test_shard_link import frame, run_of

    names = (
        "set",
        "get",
        "del",
        "rpush",
        "lrange",
        "hset",
        "zadd",
        "expire",
        "_lock",
        "_unlock",
        "_subscribe",
        "eval",
        "publish",
    )
    runs = []
    for _ in range(dice.randrange(1, 4)):
        frames = []
        for _ in range(dice.randrange(1, 4)):
            name = dice.choice(names)
            least = max(abs(BY_KEY[name].arity) - 1, 1)
            frames.append(frame(name, *(b"%d" % dice.randrange(9) for _ in range(least))))
        runs.append(
            run_of(frames, flags=dice.choice((0, 0, 1, 2, 16)), db=dice.randrange(3), dialect=dice.choice((0, 2, 3)))
        )
    return b"".join(runs)


# The log --------------------------------------------------------------------------------------------------------------
def log(data: bytes) -> None:
    """The bytes are the file of the log behind its header and manifest, which are right."""
    with tempfile.TemporaryDirectory(prefix="kache-fuzz-") as folder:
        path = Path(folder)
        write_directory(path, [], [_written(1)])
        found = next(each for each in path.iterdir() if each.suffix == ".log")
        header = found.read_bytes()[: log_format.HEADER_SIZE]
        found.write_bytes(header + data)
        files = Files()
        whole = manifests.read(files, str(path))
        assert whole is not None
        store = Store()
        try:
            recovery = Recovery(files, str(path), store, whole)
            try:
                while recovery.step(1000):
                    pass
            finally:
                recovery.close()
        except LogError:
            return
        store.check()


def _written(frames: int) -> WrittenLog:
    made = WrittenLog(log_format.LOG, 1, 1)
    for at in range(1, frames + 1):
        payload = bytes([8]) + counted(b"k%d" % at) + counted(b"value")
        made.frames.append(Record(log_format.EFFECTS, at, 1_700_000_000_000 + at, payload, at))
    return made


def a_log(dice: random.Random) -> bytes:
    folder = tempfile.mkdtemp(prefix="kache-fuzz-")
    try:
        write_directory(Path(folder), [], [_written(dice.randrange(1, 20))])
        found = next(each for each in Path(folder).iterdir() if each.suffix == ".log")
        return found.read_bytes()[log_format.HEADER_SIZE :]
    finally:
        shutil.rmtree(folder)


# Rules ----------------------------------------------------------------------------------------------------------------
def rules(data: bytes) -> None:
    """The first byte chooses between rules, divided at line ends, and a file of users."""
    if not data:
        return
    if data[0] % 2:
        lines = [(f"line {number}", *_named(line)) for number, line in enumerate(data[1:].split(b"\n"))]
        with contextlib.suppress(AclFileError, KacheError):
            for user in users_of(lines).values():
                _described_again(user)
        return
    try:
        user = apply(UserRecord(b"ada"), words_of(data[1:].split(b"\n")))
    except (RuleError, UnmatchedError):
        return
    _described_again(user)


def _named(line: bytes) -> tuple[bytes, bytes]:
    name, _, rest = line.partition(b" ")
    return name, rest


def _described_again(user: UserRecord) -> None:
    again = apply(UserRecord(user.name, user.number), words_of(describe(user).split(b" ")))
    assert again == user, "its description makes another user"
    compiled = User(user)
    assert compiled.enabled == user.enabled
    compiled.may_touch(b"key", 3)
    assert check_name(user.name) == "" or user.name == b""


def some_rules(dice: random.Random) -> bytes:
    parts = (
        b"on", b"off", b"nopass", b"resetpass", b">pw", b"<pw", b"#" + b"0" * 64, b"~a*", b"%R~b?", b"%W~[c-d]", b"%RW~*", b"allkeys",
        b"&news:*", b"allchannels", b"resetchannels", b"+get", b"-set", b"+config|get", b"+select|0", b"+@read", b"-@dangerous",
        b"+@all", b"(+get ~x)", b"clearselectors", b"limit:clients=3", b"limit:memory=1mb", b"resetlimits", b"reset",
        b"sanitize-payload", b"skip-sanitize-payload",
    )  # fmt: skip
    chosen = [dice.choice(parts) for _ in range(dice.randrange(1, 9))]
    if dice.random() < 0.3:
        return b"\1" + b"\n".join(b"user%d " % number + b" ".join(chosen) for number in range(3))
    return b"\0" + b"\n".join(chosen)


TARGETS = {
    "requests": Target(requests, a_request),
    "replies": Target(replies, a_reply),
    "link": Target(link, a_run),
    "log": Target(log, a_log),
    "rules": Target(rules, some_rules),
}

_JUNK = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\r\n",
    b"(",
    b")",
    b"*",
    b"$-1\r\n",
    b"~",
    b" ",
)


def mutated(dice: random.Random, data: bytes) -> bytes:
    """With a few bytes changed, left out, put in, or said twice."""
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(changed) + 1)
        which = dice.randrange(5)
        if which == 0 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif which == 1:
            del changed[at : at + dice.randrange(1, 9)]
        elif which == 2:
            changed[at:at] = dice.choice(_JUNK)
        elif which == 3 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        else:
            changed[at:at] = changed[at : at + dice.randrange(1, 40)]
    return bytes(changed)
