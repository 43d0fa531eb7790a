"""Functions beside real servers: what redis-server 7.0.15 answered, and payloads that go from one to the other."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

from kache.errors import CommandError
from kache.libraries import decode
from kache.wire.codec import decode_reply

from . import function_vectors

ANSWERS = Path(__file__).parent.parent / "data" / "functions-redis-7.0.15.json"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # What a library remembers between calls is of one shard.
    with Cluster(shards=1) as running:
        yield running


def comparable(words: tuple[str, ...], answer: str) -> Any:
    """The answer without what has no order, or depends on how a payload is packed."""
    value = decode_reply(answer.encode("latin-1"))[0]
    if isinstance(value, CommandError):
        return value.message
    if words[:2] == ("FUNCTION", "DUMP") and isinstance(value, bytes):
        return sorted(decode(value))
    if words[:2] == ("FUNCTION", "LIST"):
        return sorted([*library[:5], sorted(library[5]), *library[6:]] for library in value)
    return answer


def test_every_step_is_answered_as_by_a_real_server(cluster: Cluster) -> None:
    answers = json.loads(ANSWERS.read_text())
    dumps = [
        answer.partition("\r\n")[2][:-2]
        for words, answer in zip(function_vectors.steps([""] * 3), answers, strict=True)
        if words == ("FUNCTION", "DUMP")
    ]
    wrong = []
    with socket.create_connection(("127.0.0.1", cluster.port), 30) as sock:
        for words, answer in zip(function_vectors.steps(dumps), answers, strict=True):
            found = function_vectors.ask(sock, words)
            if comparable(words, found) != comparable(words, answer) and words[:2] != ("FUNCTION", "HELP"):
                wrong.append((words, answer, found))
    assert not wrong


def test_payloads_go_both_ways(cluster: Cluster, valkey_port: int) -> None:
    """What either gives, the other takes; a text that a real server compresses, one that it does not."""
    large = "#!lua name=large\nredis.register_function('two', function() return 2 end)\n" + "-- padding\n" * 3000
    with (
        socket.create_connection(("127.0.0.1", cluster.port), 30) as ours,
        socket.create_connection(("127.0.0.1", valkey_port), 30) as theirs,
    ):
        for giver, taker in ((ours, theirs), (theirs, ours)):
            for sock in (giver, taker):
                assert function_vectors.ask(sock, ("FUNCTION", "FLUSH")) == "+OK\r\n"
            for code in (function_vectors.LIBRARY, large, "#!lua name=s\nredis.register_function('s', function() end)"):
                assert function_vectors.ask(giver, ("FUNCTION", "LOAD", code)).startswith("$")
            payload = function_vectors.ask(giver, ("FUNCTION", "DUMP")).partition("\r\n")[2][:-2]
            assert function_vectors.ask(taker, ("FUNCTION", "RESTORE", payload)) == "+OK\r\n"
            assert function_vectors.ask(taker, ("FCALL", "two", "0")) == ":2\r\n"
            words = ("FUNCTION", "LIST", "WITHCODE")
            lists = [comparable(words, function_vectors.ask(sock, words)) for sock in (giver, taker)]
            assert lists[0] == lists[1]
        assert function_vectors.ask(theirs, ("FUNCTION", "FLUSH")) == "+OK\r\n"
