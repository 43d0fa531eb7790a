"""The supervisor's users: the order of a change, who is late, and that one waits for the one before."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from kache.acl.record import DEFAULT, default_user
from kache.acl.rules import describe
from kache.cluster import messages
from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.users import Users
from kache.config.settings import Config, ConfigError


class Child:
    """As much of one as is told of users."""

    def __init__(self, role: str, index: int) -> None:
        self.role, self.index, self.name = role, index, f"{role} {index}"
        self.conversation, self.state, self.pid, self.last_words = object(), "up", 1000 + index, ""


class House:
    """Two shards and two routers that acknowledge when the test says so."""

    def __init__(self) -> None:
        self.children: list[Any] = [Child(role, index) for role in ("shard", "router") for index in (0, 1)]
        self.acknowledgements = Acknowledgements()
        self.sent: list[tuple[str, messages.UsersChanged]] = []
        self.users = Users(self.children, self.acknowledgements, lambda child, m: self.sent.append((child.name, m)))
        self.users.start(Config())
        self.answers: list[tuple[str, int]] = []

    def change(self, name: bytes, *rules: bytes) -> None:
        self.users.change(messages.AclChange(0, b"admin", [(name, list(rules))], []), self.answer)

    def delete(self, *names: bytes) -> None:
        self.users.change(messages.AclChange(0, b"admin", [], list(names)), self.answer)

    def answer(self, error: str, count: int) -> None:
        self.answers.append((error, count))

    def acknowledge(self, name: str) -> None:
        message = next(message for child, message in reversed(self.sent) if child == name)
        self.acknowledgements.acknowledged(message.id, name)

    def acknowledge_all(self) -> None:
        for name in ("shard 0", "shard 1", "router 0", "router 1"):
            self.acknowledge(name)

    def told(self) -> list[str]:
        return [name for name, _ in self.sent]


def test_shards_come_before_routers_and_ok_behind_both() -> None:
    house = House()
    house.change(b"alice", b"on", b"+get")
    assert house.told() == ["shard 0", "shard 1"]
    house.acknowledge("shard 0")
    assert len(house.sent) == 2
    house.acknowledge("shard 1")
    assert house.told()[2:] == ["router 0", "router 1"]
    house.acknowledge("router 1")
    assert house.answers == []
    house.acknowledge("router 0")
    assert house.answers == [("", 0)]
    assert [record.name for record in house.sent[0][1].records] == [b"alice"]


def test_a_change_waits_for_the_one_before_and_is_applied_to_what_that_left() -> None:
    house = House()
    house.change(b"alice", b"~a")
    house.change(b"alice", b"~b")
    assert house.told() == ["shard 0", "shard 1"]
    house.acknowledge_all()
    assert house.answers == [("", 0)]
    house.acknowledge_all()
    assert house.answers == [("", 0)] * 2
    assert describe(house.users.records[b"alice"]) == b"off ~a ~b resetchannels -@all"


def test_what_changes_nothing_is_not_told() -> None:
    house = House()
    house.change(DEFAULT, b"on")
    house.delete(b"nobody")
    assert house.sent == [] and house.answers == [("", 0), ("", 0)]


def test_a_refused_change_is_told_to_nobody_and_does_not_hold_up_the_next() -> None:
    house = House()
    house.change(b"alice", b"on", b"nonsense")
    assert house.sent == [] and "nonsense" in house.answers[0][0] and b"alice" not in house.users.records
    house.change(b"alice", b"on")
    assert house.told() == ["shard 0", "shard 1"]


def test_numbers_are_never_used_again() -> None:
    house = House()
    numbers = []
    for _ in range(3):
        house.change(b"alice", b"on")
        numbers.append(house.users.records[b"alice"].number)
        house.acknowledge_all()
        house.delete(b"alice", b"nobody", b"default")
        house.acknowledge_all()
    assert len(set(numbers)) == 3 and 0 not in numbers and 1 not in numbers
    assert [count for _, count in house.answers] == [0, 1] * 3
    assert list(house.users.records) == [DEFAULT]


def test_who_is_late_is_killed_and_the_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    house = House()
    house.change(b"alice", b"on")
    house.acknowledge("shard 0")
    house.acknowledgements.expire(float("inf"))
    assert killed == [(1001, signal.SIGKILL)]
    assert house.told()[2:] == ["router 0", "router 1"], "the routers are told all the same"
    house.acknowledge("router 0")
    house.acknowledge("router 1")
    assert house.answers == [("the users were changed; shard 1 did not follow in time and is started again", 0)]
    house.change(b"alice", b"off")
    assert len(house.sent) == 6


def test_a_child_that_ends_meanwhile_is_not_waited_for() -> None:
    house = House()
    house.change(b"alice", b"on")
    house.acknowledge("shard 0")
    house.acknowledgements.gone("shard 1")
    assert house.told()[2:] == ["router 0", "router 1"]


def test_requirepass_is_the_default_users_password() -> None:
    house = House()
    house.users.require(Config(requirepass="secret"), house.answer)
    house.acknowledge_all()
    default = house.users.records[DEFAULT]
    assert not default.nopass and len(default.passwords) == 1
    assert house.users.as_settings(Config(requirepass="secret")) == {}
    assert list(house.users.as_settings(Config())) == ["default"]
    house.users.require(Config(), house.answer)
    assert house.users.records[DEFAULT] == default_user()


def test_a_default_user_without_a_password_is_not_shown_to_the_network() -> None:
    users = Users([], Acknowledgements(), lambda child, message: None)
    open_to_all = Config(bind=("0.0.0.0",), users={"default": "on nopass +@all ~*"})
    with pytest.raises(ConfigError, match="needs no password is refused"):
        users.start(open_to_all)
    users.start(Config(bind=("0.0.0.0",), users={"default": "off nopass +@all ~*"}))
