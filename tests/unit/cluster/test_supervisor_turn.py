"""A turn of the supervisor in which something goes wrong."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kache.cluster import messages
from kache.cluster.children import Child
from kache.cluster.control import Conversation
from kache.cluster.supervisor import Supervisor
from kache.config.settings import Config


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One that has started nothing and owns no files."""
    made = Supervisor(Config(shards=1, routers=1))
    monkeypatch.setattr(made, "_look_after_files", lambda: None)
    yield made
    made._selector.close()


def fail(*_: Any) -> None:
    raise ZeroDivisionError("on purpose")


def test_an_error_in_a_handler_ends_nothing(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        supervisor._selector.register(ours, selectors.EVENT_READ, fail)
        theirs.send(b"x")
        supervisor._turn()
    assert [record.getMessage() for record in caplog.records] == ["internal error with what was received"]


def test_an_error_in_a_timer_ends_nothing(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor._health, "look", fail)
    supervisor._turn()
    assert [record.getMessage() for record in caplog.records] == ["internal error in a timer"]


def test_an_error_with_a_request_is_its_answer(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[messages.Down] = []
    monkeypatch.setattr(supervisor._changes, "ask", fail)
    monkeypatch.setattr(supervisor, "_answer", lambda _, message: told.append(message))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        supervisor._on_request(Conversation(ours), messages.ConfigSet(7, {}))
    assert told == [messages.Ack(7, "internal error: ZeroDivisionError('on purpose')")]
    assert len(caplog.records) == 1


def test_a_child_whose_end_went_wrong_comes_back(supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    supervisor._children.append(Child("shard", 0, "title"))
    supervisor._look_after_children(5.0)
    assert supervisor._children[0].restart_at == 5.0
