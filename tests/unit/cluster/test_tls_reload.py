"""New certificates: who commits when, who is late, and what becomes of one that hung."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec
import pytest

from kache.cluster import messages
from kache.cluster.acknowledgements import ACK_SECONDS, Acknowledgements
from kache.cluster.tls_reload import TlsReload
from kache.config.settings import Config


class Child:
    """As much of one as is told of certificates."""

    def __init__(self, index: int) -> None:
        self.role, self.index, self.name = "router", index, f"router {index}"
        self.conversation, self.restarts, self.unresponsive = object(), 0, False


class House:
    """Two routers that acknowledge when the test says so."""

    def __init__(self) -> None:
        self.children: list[Any] = [Child(0), Child(1)]
        self.acknowledgements = Acknowledgements()
        self.sent: list[tuple[str, messages.Down]] = []
        self.answers: list[str] = []
        config = msgspec.structs.replace(Config(), tls_port=1)
        self.reload = TlsReload(
            self.children,
            self.acknowledgements,
            lambda child, message: self.sent.append((child.name, message)),
            lambda: config,
        )

    def acknowledge(self, kind: type, *indexes: int, error: str = "") -> None:
        """The newest message of the kind."""
        for index in indexes:
            name = f"router {index}"
            message = next(m for to, m in reversed(self.sent) if to == name and isinstance(m, kind))
            self.acknowledgements.acknowledged(message.id, name, error)

    def told(self) -> list[tuple[str, str]]:
        found = [(name, type(message).__name__) for name, message in self.sent]
        self.sent.clear()
        return found


@pytest.fixture
def house() -> House:
    return House()


def test_nobody_serves_it_before_all_could_read_it(house: House) -> None:
    house.reload.ask(house.answers.append)
    assert house.told() == [("router 0", "TlsPrepare"), ("router 1", "TlsPrepare")]
    house.reload.ask(house.answers.append)
    assert house.told() == []


def test_the_answer_comes_behind_the_last_commit(house: House) -> None:
    house.reload.ask(house.answers.append)
    house.acknowledge(messages.TlsPrepare, 0, 1)
    house.acknowledge(messages.TlsCommit, 0)
    assert house.answers == []
    house.acknowledge(messages.TlsCommit, 1)
    assert house.answers == [""]


def test_the_answer_names_who_serves_the_old_one_still(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kache")
    house.reload.ask(house.answers.append)
    house.acknowledge(messages.TlsPrepare, 0, 1)
    house.acknowledge(messages.TlsCommit, 0)
    house.acknowledgements.expire(time.monotonic() + ACK_SECONDS + 1)
    late = "router 1 did not acknowledge in time; the change holds once it does"
    assert house.answers == [late]
    assert [record.getMessage() for record in caplog.records] == [f"the TLS certificate was read again: {late}"]
    assert house.reload.trouble == ""


def test_one_that_cannot_keeps_all_from_it(house: House) -> None:
    house.reload.ask(house.answers.append)
    house.acknowledge(messages.TlsPrepare, 0)
    house.acknowledge(messages.TlsPrepare, 1, error="no such file")
    assert house.answers == ["router 1 cannot take it in: no such file"]
    assert ("router 0", "TlsCommit") not in house.told()


def test_one_that_hung_has_all_read_it_once_it_lives_again(house: House) -> None:
    hung = house.children[1]
    hung.unresponsive = True
    house.reload.ask(house.answers.append)
    house.acknowledge(messages.TlsPrepare, 0)
    house.acknowledge(messages.TlsCommit, 0)
    assert house.answers == [""]
    assert house.told() == [("router 0", "TlsPrepare"), ("router 0", "TlsCommit")]
    hung.unresponsive = False
    house.reload.lives_again(hung)
    assert house.told() == [("router 0", "TlsPrepare"), ("router 1", "TlsPrepare")]


def test_one_that_hung_and_missed_nothing_changes_nothing(house: House) -> None:
    house.reload.lives_again(house.children[1])
    assert house.told() == []
