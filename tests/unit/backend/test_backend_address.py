"""Addresses of nodes, and what nodes say of one another."""

from __future__ import annotations

import pytest

from kache.backend.address import AddressError, format_node, nodes_of, split_node, wants_tls
from kache.backend.topology import TopologyError, from_slots, migrations, moved_to, view_of

ASKED = ("10.0.0.9", 7000)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("host", ("host", 6379)),
        ("host:7000", ("host", 7000)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:7000", ("::1", 7000)),
        ("[fe80::1]", ("fe80::1", 6379)),
    ],
)
def test_a_node(text: str, node: tuple[str, int]) -> None:
    assert split_node(text) == node
    assert split_node(format_node(node)) == node


@pytest.mark.parametrize("text", ["", ":1", "host:", "host:x", "host:0", "host:65536", "a b:1", "host:1/2", "host:-1"])
def test_no_node(text: str) -> None:
    with pytest.raises(AddressError, match="must name nodes as host:port"):
        split_node(text)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host", "must be redis-cluster://"),
        ("host:1", "must be redis-cluster://"),
        ("redis-cluster://user:secret@host", "must not hold a password"),
        ("redis-cluster://", "must name nodes"),
        ("redis-cluster://a,,b", "must name nodes"),
    ],
)
def test_no_address(url: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        nodes_of(url)


def test_an_address() -> None:
    assert nodes_of("redis-cluster://a:1,b,[::1]:3/") == [("a", 1), ("b", 6379), ("::1", 3)]


def test_an_address_by_tls() -> None:
    assert nodes_of("rediss-cluster://a:1,b") == [("a", 1), ("b", 6379)]
    assert wants_tls("rediss-cluster://a") and not wants_tls("redis-cluster://a")


def test_a_view_has_replicas_and_epochs() -> None:
    reply = [
        [100, 16383, [b"10.0.0.2", 7001, b"bbb"], [b"", 7005, b"eee"], [b"?", 7006, b"fff"], [b"10.0.0.3", 7002]],
        [0, 99, [b"", 7000, b"aaa", []]],
    ]
    nodes = (
        b"aaa 10.0.0.9:7000@17000 myself,master - 0 1 12 connected 0-99\n"
        b"bbb 10.0.0.2:7001@17001 master - 0 1 2 connected 100-16383\n"
        b"eee 10.0.0.9:7005@17005 slave bbb 0 1 99 connected\n"
    )
    first, second = view_of(reply, nodes, ASKED)
    assert first == (0, 99, ("10.0.0.9", 7000), (), 12)
    assert second == (100, 16383, ("10.0.0.2", 7001), (("10.0.0.9", 7005), ("10.0.0.3", 7002)), 2)
    assert [each.epoch for each in view_of(reply, b"", ASKED)] == [0, 0]


def test_slots() -> None:
    reply = [
        [8192, 16383, [b"10.0.0.2", 7001, b"id"], [b"10.0.0.3", 7002, b"id"]],
        [0, 99, [b"", 7000, b"id", []]],
        [100, 8190, [None, 7003]],
        [8191, 8191, [b"?", 7004]],
    ]
    assert from_slots(reply, ASKED) == [
        (0, 99, ("10.0.0.9", 7000)),
        (100, 8190, ("10.0.0.9", 7003)),
        (8192, 16383, ("10.0.0.2", 7001)),
    ]


@pytest.mark.parametrize(
    "reply",
    [None, b"", [1], [[1, 2]], [[0, 16384, [b"h", 1]]], [[5, 4, [b"h", 1]]], [[0, 1, [b"h", b"1"]]], [[0, 1, [1, 1]]]],
)
def test_no_slots(reply: object) -> None:
    with pytest.raises(TopologyError):
        from_slots(reply, ASKED)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"MOVED 866 10.0.0.2:7001", (866, ("10.0.0.2", 7001))),
        (b"ASK 16383 ::1:7001", (16383, ("::1", 7001))),
        (b"MOVED 1 :7001", (1, ("10.0.0.9", 7001))),
        (b"MOVED 1 ?:7001", (1, ("10.0.0.9", 7001))),
        (b"MOVED 1 host.example:7001", (1, ("host.example", 7001))),
        (b"MOVED 16384 a:1", None),
        (b"MOVED x a:1", None),
        (b"MOVED 1 a", None),
        (b"MOVED 1 a:b", None),
        (b"MOVED 1 a:99999", None),
        (b"MOVED", None),
    ],
)
def test_redirects(text: bytes, found: object) -> None:
    assert moved_to(text, ASKED) == found


def test_migrations() -> None:
    text = (
        b"aaa 10.0.0.1:7000@17000,host master - 0 1 1 connected 0-99\n"
        b"bbb 10.0.0.2:7001@17001 myself,master - 0 1 2 connected 100-101 200 [101->-aaa] [5-<-aaa]\n"
    )
    assert migrations(text) == ({100, 101, 200}, {101: ("10.0.0.1", 7000)})
