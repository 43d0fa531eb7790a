"""TLS over bytes: the one pair of BIOs is empty between any two calls, so nobody gets what is another's."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority

from kache.wire.tls import Tls, TlsPool

OPEN, FAILED = 2, 3


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def server_context(authority: Authority, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert_file, authority.key_file)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@pytest.fixture
def pool(authority: Authority) -> TlsPool:
    return TlsPool(server_context(authority))


class Peer:
    """A client of Python's own ssl, with BIOs of its own."""

    def __init__(self, authority: Authority, context: ssl.SSLContext | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or authority.context()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake(self) -> None:
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            pass

    def read(self) -> bytes:
        found = b""
        while True:
            try:
                data = self.ssl.read(1 << 16)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return found
            if not data:
                return found
            found += data


def connect(authority: Authority, tls: Tls, step: int = 1 << 20) -> Peer:
    """A peer whose handshake with `tls` is over; what it sends comes in pieces of `step` bytes."""
    peer = Peer(authority)
    for _ in range(4):
        peer.shake()
        sent = peer.outgoing.read()
        for at in range(0, len(sent), step):
            assert tls.received(sent[at : at + step]) == b""
            peer.incoming.write(tls.sealed(b""))
    assert tls.state == OPEN
    peer.read()
    return peer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_go_both_ways(authority: Authority, version: ssl.TLSVersion) -> None:
    tls = Tls(TlsPool(server_context(authority, version)))
    peer = connect(authority, tls)
    large = random.Random(1).randbytes(300_000)
    peer.ssl.write(b"ping")
    assert tls.received(peer.outgoing.read()) == b"ping"
    sent = 0
    while sent < len(large):
        sent += peer.ssl.write(large[sent:])
    assert tls.received(peer.outgoing.read()) == large
    peer.incoming.write(tls.sealed(large))
    assert peer.read() == large
    assert tls.pool.handshakes == 1


def test_cut_at_every_byte(authority: Authority, pool: TlsPool) -> None:
    tls = Tls(pool)
    peer = connect(authority, tls, step=1)
    for text in (b"a", b"b" * 1000, b"c" * 20_000):
        peer.ssl.write(text)
        peer.ssl.write(b"end")
        sent = peer.outgoing.read()
        found = b"".join(tls.received(sent[at : at + 1]) for at in range(len(sent)))
        assert found == text + b"end"


def test_sixty_peers_at_once_get_their_own(authority: Authority, pool: TlsPool) -> None:
    draw = random.Random(2)
    sides = [Tls(pool) for _ in range(60)]
    peers = [connect(authority, tls, draw.choice((1 << 20, 100, 7))) for tls in sides]
    wires = [bytearray() for _ in peers]
    meant = [bytearray() for _ in peers]
    found = [bytearray() for _ in peers]
    answers = [bytearray() for _ in peers]
    got = [bytearray() for _ in peers]
    for _ in range(4000):
        at = draw.randrange(len(peers))
        if draw.random() < 0.4:
            text = bytes([at]) * draw.choice((1, 40, 3000, 16000))
            meant[at] += text
            peers[at].ssl.write(text)
            wires[at] += peers[at].outgoing.read()
        cut = draw.randint(0, min(len(wires[at]), draw.choice((3, 100, 70_000))))
        found[at] += sides[at].received(bytes(wires[at][:cut]))
        del wires[at][:cut]
        if draw.random() < 0.2:
            answer = bytes([255 - at]) * draw.choice((5, 20_000))
            answers[at] += answer
            peers[at].incoming.write(sides[at].sealed(answer))
            got[at] += peers[at].read()
    for at, tls in enumerate(sides):
        found[at] += tls.received(bytes(wires[at]))
    assert found == meant
    assert got == answers


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\x16\x03\x01\xff\xff" + b"x" * 100,
    b"\x16\x03\x01\x00\x05hello",
    b"\x00" * 100,
    b"\x17\x03\x03\x00\x20" + b"z" * 32,
    b"\x80\x2e\x01\x03\x01" + b"q" * 60,
    b"\x15\x03\x03\x00\x02\x02\x28",
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("step", [1, 1000])
def test_garbage_disturbs_nobody(authority: Authority, pool: TlsPool, garbage: bytes, step: int) -> None:
    good = Tls(pool)
    peer = connect(authority, good)
    bad = Tls(pool)
    for at in range(0, len(garbage), step):
        assert bad.received(garbage[at : at + step]) == b""
    assert bad.state == FAILED
    assert bad.failure
    peer.ssl.write(b"still here")
    assert good.received(peer.outgoing.read()) == b"still here"
    peer.incoming.write(good.sealed(b"and here"))
    assert peer.read() == b"and here"


def test_a_flipped_bit_ends_it_behind_what_was_right(authority: Authority, pool: TlsPool) -> None:
    for place in range(5, 40, 5):
        tls, good = Tls(pool), Tls(pool)
        peer, neighbour = connect(authority, tls), connect(authority, good)
        peer.ssl.write(b"right")
        right = peer.outgoing.read()
        peer.ssl.write(b"wrong" * 10)
        wrong = bytearray(peer.outgoing.read())
        wrong[place] ^= 1
        assert tls.received(right + bytes(wrong)) == b"right"
        assert tls.state == FAILED
        neighbour.ssl.write(b"fine")
        assert good.received(neighbour.outgoing.read()) == b"fine"


def test_a_reused_record_is_refused(authority: Authority, pool: TlsPool) -> None:
    tls = Tls(pool)
    peer = connect(authority, tls)
    peer.ssl.write(b"once")
    record = peer.outgoing.read()
    assert tls.received(record) == b"once"
    assert tls.received(record) == b""
    assert tls.state == FAILED


def test_close_notify_is_the_end_of_input_and_output_goes_on(authority: Authority, pool: TlsPool) -> None:
    tls = Tls(pool)
    peer = connect(authority, tls)
    peer.ssl.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        peer.ssl.unwrap()
    assert tls.received(peer.outgoing.read()) == b"last"
    assert tls.ended
    peer.incoming.write(tls.sealed(b"answer") + tls.closed())
    assert peer.read() == b"answer"


def test_new_contexts_are_for_new_peers(authority: Authority, pool: TlsPool, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    old = Tls(pool)
    peer = connect(authority, old)
    pool.use(server_context(other))
    new = Tls(pool)
    connect(other, new)
    peer.ssl.write(b"as before")
    assert old.received(peer.outgoing.read()) == b"as before"
    assert other.ca_file.read_bytes() != authority.ca_file.read_bytes()


def test_an_older_version_is_refused(authority: Authority) -> None:
    tls = Tls(TlsPool(server_context(authority, ssl.TLSVersion.TLSv1_3)))
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    peer = Peer(authority, context)
    peer.shake()
    tls.received(peer.outgoing.read())
    assert tls.state == FAILED
    assert "protocol" in tls.failure
    peer.incoming.write(tls.sealed(b""))
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        peer.ssl.do_handshake()


def mutated(draw: random.Random, wire: bytes, count: int = 200) -> Iterator[bytes]:
    for _ in range(count):
        changed = bytearray(wire)
        for _ in range(draw.randint(1, 4)):
            action, at = draw.randrange(4), draw.randrange(len(changed))
            if action == 0:
                changed[at] ^= 1 << draw.randrange(8)
            elif action == 1:
                del changed[at : at + draw.randint(1, 40)]
            elif action == 2:
                changed[at:at] = draw.randbytes(draw.randint(1, 40))
            else:
                changed[at:at] = changed[:at]
            if not changed:
                break
        yield bytes(changed)


def test_mutated_handshakes_and_records_disturb_nobody(authority: Authority, pool: TlsPool) -> None:
    draw = random.Random(3)
    good = Tls(pool)
    neighbour = connect(authority, good)
    hello = Peer(authority)
    hello.shake()
    first = hello.outgoing.read()
    for wire in mutated(draw, first):
        bad = Tls(pool)
        at = 0
        while at < len(wire):
            step = draw.choice((1, 5, 500))
            bad.received(wire[at : at + step])
            at += step
        assert bad.state != OPEN
    text = b"x" * 100
    for _ in range(200):
        victim = Tls(pool)
        peer = connect(authority, victim)
        peer.ssl.write(text)
        for wire in mutated(draw, peer.outgoing.read(), 1):
            found = victim.received(wire)
            assert found in (b"", text)
    neighbour.ssl.write(b"fine")
    assert good.received(neighbour.outgoing.read()) == b"fine"
