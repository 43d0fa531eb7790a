"""Every refusal of a node at every place of a pipeline, replies cut at every byte, silence, lost connections."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from fake_nodes import CLOSE, CLOSE_AFTER, SILENT, FakeNodes
from six_nodes import until

from kache.slots import slot_of_key
from kache.testing.cluster import LocalCluster

KEY = b"order"
SLOT = slot_of_key(KEY)
PUSHES = 12


@pytest.fixture
def nodes() -> Iterator[FakeNodes]:
    with FakeNodes() as fakes:
        yield fakes


def serving(fakes: FakeNodes, **settings: object) -> LocalCluster:
    patient: dict[str, object] = {"request_timeout_ms": 20000, "backend_silence_ms": 4000, "backend_wait_ms": 20000}
    return LocalCluster(shards=0, backend=fakes.url, **patient | settings)


def owner(fakes: FakeNodes) -> int:
    return next(index for first, last, index in fakes.ranges if first <= SLOT <= last)


def owner_of(fakes: FakeNodes, key: str) -> int:
    slot = slot_of_key(key.encode())
    return next(index for first, last, index in fakes.ranges if first <= slot <= last)


def pushes(client: redis.Redis, count: int = PUSHES) -> list[object]:
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.rpush(KEY, number)
        return pipe.execute(raise_on_error=False)


REFUSALS = [
    b"MOVED",
    b"ASK",
    b"TRYAGAIN later",
    b"CLUSTERDOWN down",
    b"LOADING it",
    b"MASTERDOWN link",
    b"READONLY replica",
]


class Refusing:
    """From one command on the slot's node refuses what is in flight, as a node does whose slot has moved or that cannot serve
    it now; what is sent once more is executed. MOVED stays: then the slot is the other node's."""

    def __init__(self, nodes: FakeNodes, refusal: bytes, place: int) -> None:
        self.nodes = nodes
        self.refusal = refusal
        self.place = place
        self.home = owner(nodes)
        self.refused: set[bytes] = set()
        self.over = False

    def __call__(self, node: int, words: list[bytes], asking: bool) -> bytes | None:
        if words[0] != b"RPUSH":
            return None
        other = self.nodes.address(1 - self.home)
        if node != self.home:
            if asking or (self.refusal == b"MOVED" and self.refused):
                return None
            return b"-MOVED %d %b\r\n" % (SLOT, self.nodes.address(self.home))
        if self.refusal == b"MOVED" and self.refused:
            return b"-MOVED %d %b\r\n" % (SLOT, other)
        self.over = self.over or words[2] in self.refused
        if self.over or int(words[2]) < self.place:
            return None
        self.refused.add(words[2])
        target = b" %d %b" % (SLOT, other) if self.refusal in (b"MOVED", b"ASK") else b""
        return b"-%b%b\r\n" % (self.refusal, target)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_at_every_place_is_followed_in_order(nodes: FakeNodes, refusal: bytes) -> None:
    """At each command of a pipeline: all are executed, once, in their order, and nobody sees it."""
    with serving(nodes) as front, redis.Redis(port=front.port) as client:
        for place in range(PUSHES):
            client.delete(KEY)
            nodes.rule = rule = Refusing(nodes, refusal, place)
            answers = pushes(client)
            nodes.rule = lambda node, words, asking: None
            assert answers == list(range(1, PUSHES + 1)), place
            assert nodes.values[KEY] == [b"%d" % number for number in range(PUSHES)], place
            assert rule.refused, place


def test_replies_cut_at_every_byte() -> None:
    with FakeNodes(pieces=1) as fakes, serving(fakes) as front:
        for protocol in (2, 3):
            with redis.Redis(port=front.port, protocol=protocol) as client:
                client.delete(KEY, "text", "none")
                assert client.set("text", "x" * 300)
                with client.pipeline(transaction=False) as pipe:
                    pipe.rpush(KEY, "a", "", "c" * 40)
                    pipe.lrange(KEY, 0, -1)
                    pipe.get("text")
                    pipe.get("none")
                    pipe.mget("text", "none", "other")
                    pipe.execute_command("NOSUCH", "x")
                    pipe.delete("text", "none")
                    answers = pipe.execute(raise_on_error=False)
                assert answers[:5] == [3, [b"a", b"", b"c" * 40], b"x" * 300, None, [b"x" * 300, None, None]]
                assert isinstance(answers[5], redis.ResponseError)
                assert answers[6] == 1


@pytest.mark.parametrize("place", range(0, PUSHES, 3))
def test_a_lost_connection_leaves_writes_uncertain_and_repeats_reads(nodes: FakeNodes, place: int) -> None:
    with serving(nodes) as front, redis.Redis(port=front.port) as client:
        client.set("value", "there")
        client.delete(KEY)
        lost: list[int] = []

        def rule(node: int, words: list[bytes], asking: bool) -> bytes | None:
            if not lost and words[0] == b"RPUSH" and words[2] == b"%d" % place:
                lost.append(place)
                return CLOSE_AFTER
            return None

        nodes.rule = rule
        with client.pipeline(transaction=False) as pipe:
            for number in range(PUSHES):
                pipe.rpush(KEY, number)
                pipe.lrange(KEY, 0, 0)
            answers = pipe.execute(raise_on_error=False)
        assert answers[: 2 * place : 2] == list(range(1, place + 1))
        assert all(isinstance(answer, list) for answer in answers[1::2]), answers
        failed = [answer for answer in answers[::2] if isinstance(answer, Exception)]
        assert failed and all("UNCERTAIN" in str(answer) for answer in failed)
        # Nothing was executed twice, and what was executed kept its order.
        done = [int(value) for value in nodes.values[KEY]]
        assert done == sorted(set(done)) and done[: place + 1] == list(range(place + 1))


def test_a_read_is_sent_again_after_a_lost_connection(nodes: FakeNodes) -> None:
    with serving(nodes) as front, redis.Redis(port=front.port) as client:
        client.set(KEY, "v")
        for answer in (CLOSE, SILENT):
            lost: list[bytes] = []

            def rule(
                node: int, words: list[bytes], asking: bool, answer: bytes = answer, lost: list[bytes] = lost
            ) -> bytes | None:
                if words[0] == b"GET" and not lost:
                    lost.append(answer)
                    return answer
                return None

            nodes.rule = rule
            assert client.get(KEY) == b"v"


def test_nodes_that_point_at_one_another(nodes: FakeNodes) -> None:
    with serving(nodes) as front, redis.Redis(port=front.port) as client:
        nodes.rule = lambda node, words, asking: b"-MOVED %d %b\r\n" % (SLOT, nodes.address(1 - node))
        with pytest.raises(
            redis.ResponseError, match=f"the nodes redirect slot {SLOT} to one another; nothing was executed"
        ):
            client.set(KEY, 1)
        nodes.rule = lambda node, words, asking: None
        assert client.set(KEY, 1)


def test_patience_ends(nodes: FakeNodes) -> None:
    with serving(nodes, backend_wait_ms=300) as front, redis.Redis(port=front.port) as client:
        nodes.rule = lambda node, words, asking: b"-CLUSTERDOWN The cluster is down\r\n"
        with pytest.raises(redis.ResponseError, match="The cluster is down; nothing was executed"):
            client.set(KEY, 1)


def test_without_patience_nothing_is_waited_for(nodes: FakeNodes) -> None:
    with serving(nodes, backend_wait_ms=0) as front, redis.Redis(port=front.port) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(200):
                pipe.set(f"many:{number % 20}", number)
            assert pipe.execute() == [True] * 200
        nodes.rule = lambda node, words, asking: b"-TRYAGAIN it\r\n"
        begun = time.monotonic()
        with pytest.raises(redis.ResponseError, match="it; nothing was executed"):
            client.set(KEY, 1)
        assert time.monotonic() - begun < 15


def test_a_slow_node_is_answered_for(nodes: FakeNodes) -> None:
    with (
        serving(nodes, request_timeout_ms=200, backend_silence_ms=60000) as front,
        redis.Redis(port=front.port) as client,
    ):
        nodes.rule = lambda node, words, asking: SILENT
        with pytest.raises(redis.ResponseError, match="TIMEOUT the node did not answer in time"):
            client.set(KEY, 1)


def test_a_node_that_lags_behind_is_not_believed(nodes: FakeNodes) -> None:
    """Of two maps the one whose master of a slot has the higher config epoch holds, whichever is read last."""
    home = owner(nodes)
    other = 1 - home
    nodes.views[other] = [(0, 16383, other)]
    nodes.epochs = {(home, home): 7, (home, other): 3, (other, other): 3, (other, home): 2}
    elsewhere = next(key for key in map("k{}".format, range(100)) if owner_of(nodes, key) == other)
    strays: list[int] = []

    def rule(node: int, words: list[bytes], asking: bool) -> bytes | None:
        if words[1] == KEY and node != home:
            strays.append(node)
            return b"-MOVED %d %b\r\n" % (SLOT, nodes.address(home))
        if words[1] == b"refresh":
            # Makes the router read the map again.
            return b"-CLUSTERDOWN it\r\n" if len(words) > 2 else None
        return None

    with serving(nodes, backend_wait_ms=0) as front, redis.Redis(port=front.port) as client:
        nodes.rule = rule

        def maps() -> int:
            return int(client.info("backend")["maps_read"])

        def refresh() -> None:
            before = maps()
            with pytest.raises(redis.ResponseError):
                client.set("refresh", 1)
            until(lambda: maps() > before)

        assert client.set(KEY, 1) and client.set(elsewhere, 1)
        refresh()
        refresh()
        # Both nodes have been asked by now, who are so in turns.
        assert client.get(KEY) == b"1"
        strays.clear()
        for _ in range(4):
            refresh()
            assert client.get(KEY) == b"1"
    assert strays == []
