"""Signs of life: who is asked, who counts as unresponsive, and what time counts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.health import Health
from kache.cluster.messages import Down, Ping


@pytest.fixture
def child() -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Child("shard", 0, "title", pid=7, conversation=Conversation(ours), state="up")


def health_of(child: Child) -> tuple[Health, list[Down], list[Child]]:
    sent: list[Down] = []
    given_up: list[Child] = []
    return Health([child], lambda _, message: sent.append(message), given_up.append), sent, given_up


def test_a_silent_child_is_given_up_once(child: Child) -> None:
    health, sent, given_up = health_of(child)
    now = 100.0
    while now <= 112.0 and not given_up:
        health.look(now, 10)
        now = health.due
    assert 110.0 <= now <= 112.0
    for _ in range(20):
        health.look(now, 10)
        now = health.due
    assert given_up == [child]
    assert [type(message) for message in sent] == [Ping]  # one question is enough
    assert child.status().state == "unresponsive"
    assert child.status().reason.startswith("no sign of life for ")
    assert health.answered(child)
    assert child.status().state == "up"
    assert not health.answered(child)


def test_who_answers_is_asked_again(child: Child) -> None:
    health, sent, given_up = health_of(child)
    for look in range(30):
        health.look(100.0 + look, 10)
        health.answered(child)
    assert (len(sent), given_up) == (30, [])


def test_time_in_which_nobody_looked_does_not_count(child: Child) -> None:
    health, _, given_up = health_of(child)
    health.look(100.0, 10)
    health.look(10000.0, 10)
    assert given_up == []


def test_who_is_not_up_is_not_asked(child: Child) -> None:
    health, sent, _ = health_of(child)
    child.state = "starting"
    health.look(100.0, 10)
    child.state, child.conversation = "up", None
    health.look(101.0, 10)
    assert sent == []
