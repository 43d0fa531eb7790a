"""The supervisor's libraries and scripts: one change after the other, all shards or none, what a restarted one is given."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.messages import FunctionChange, LibrariesAre, Library, ScriptsAre
from kache.cluster.programs import MOST_SCRIPT_BYTES, SECONDS, Programs
from kache.libraries import MOST_BYTES, decode


class Child:
    """As much of one as is told of programs."""

    def __init__(self, role: str, index: int) -> None:
        self.role, self.index, self.name, self.restarts = role, index, f"{role} {index}", 0
        self.conversation: object | None = object()


class House:
    """Two shards, which acknowledge when the test says so, and a router, which is told nothing."""

    def __init__(self) -> None:
        self.children: list[Any] = [Child("shard", 0), Child("shard", 1), Child("router", 0)]
        self.acknowledgements = Acknowledgements()
        self.sent: list[tuple[str, Any]] = []
        self.kept: list[bytes] = []
        self.programs = Programs(
            self.children, self.acknowledgements, lambda child, m: self.sent.append((child.name, m)), self.keep
        )
        self.answers: list[str] = []

    def keep(self, payload: bytes) -> None:
        self.kept.append(payload)

    def change(self, what: str, *codes: str, name: str = "") -> None:
        libraries = [Library(code[:1], code.encode()) for code in codes]
        self.programs.change(FunctionChange(0, what, libraries, name), self.answers.append)

    def acknowledge(self, *errors: str) -> None:
        """Every shard answers what it was told last."""
        last = dict(self.sent)
        for (name, message), error in zip(last.items(), errors or ("", ""), strict=True):
            self.acknowledgements.acknowledged(message.id, name, error)

    def told(self) -> list[str]:
        """The texts of the libraries that a shard was told last."""
        message = self.sent[-1][1]
        assert isinstance(message, LibrariesAre)
        return [each.code.decode() for each in message.libraries]


def texts(programs: Programs) -> list[str]:
    return [each.code.decode() for each in programs.libraries]


def test_a_change_is_over_when_every_shard_has_it() -> None:
    house = House()
    house.change("load", "a1")
    house.change("load", "b1")
    assert [name for name, _ in house.sent] == ["shard 0", "shard 1"] and house.answers == []
    house.acknowledge()
    assert house.answers == [""] and house.told() == ["a1", "b1"]
    house.acknowledge()
    assert house.answers == ["", ""] and [sorted(decode(each)) for each in house.kept] == [[b"a1"], [b"a1", b"b1"]]
    house.change("delete", name="a")
    house.acknowledge()
    house.change("anew")
    house.acknowledge()
    assert house.answers == [""] * 4 and house.kept[-1] == b"" and house.programs.libraries == []


def test_what_is_refused_at_once() -> None:
    house = House()
    house.change("load", "a1")
    house.acknowledge()
    sent = len(house.sent)
    house.change("load", "a2")
    house.change("append", "c1", "a2")
    house.change("delete", name="nosuch")
    house.change("replace", "a" * (MOST_BYTES + 1))
    assert house.answers[1:] == [
        "ERR Library 'a' already exists",
        "ERR Library a already exists",
        "ERR Library not found",
        f"ERR all libraries together may have {MOST_BYTES} bytes",
    ]
    assert len(house.sent) == sent and texts(house.programs) == ["a1"]


def test_a_library_that_is_loaded_again_is_another_one() -> None:
    house = House()
    house.change("load", "a1")
    house.acknowledge()
    before = house.programs.libraries[0].serial
    house.change("replace", "a1")
    house.acknowledge()
    assert house.programs.libraries[0].serial > before and house.answers == ["", ""]


@pytest.mark.parametrize("how", ["refused", "late", "ended", "started again", "no room"])
def test_one_shard_that_cannot_takes_it_back_for_all(how: str) -> None:
    house = House()
    house.change("load", "a1")
    house.acknowledge()
    house.change("load", "b1")
    # One that is started meanwhile begins with what the others are being told.
    assert texts(house.programs) == ["a1", "b1"]
    if how == "refused":
        house.acknowledge("", "ERR it is wrong")
    elif how == "late":
        house.acknowledgements.acknowledged(house.sent[-1][1].id, "shard 0")
        house.acknowledgements.expire(time.monotonic() + SECONDS + 1)
    elif how == "ended":
        house.acknowledgements.acknowledged(house.sent[-1][1].id, "shard 0")
        house.children[1].conversation = None
        house.acknowledgements.gone("shard 1")
        house.children[1].conversation = object()
    elif how == "started again":
        house.children[1].restarts += 1
        house.acknowledge()
    else:
        house.programs._keep = refuse
        house.acknowledge()
    assert house.told() == ["a1"] and len(house.answers) == 1
    house.acknowledge()
    assert texts(house.programs) == ["a1"]
    assert (
        house.answers[1]
        == {
            "refused": "ERR it is wrong",
            "late": "TRYAGAIN shard 1 did not answer in time; nothing was changed",
            "ended": "TRYAGAIN shard 1 ended meanwhile; nothing was changed",
            "started again": "TRYAGAIN shard 1 ended meanwhile; nothing was changed",
            "no room": "ERR the libraries cannot be kept on disk: No space left on device; nothing was changed",
        }[how]
    )


def refuse(_payload: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_scripts() -> None:
    house = House()
    load = house.programs.script
    load(b"return 1", house.answers.append)
    assert house.programs.scripts == [b"return 1"] and house.answers == []
    house.acknowledge()
    load(b"return 1", house.answers.append)
    assert house.answers == ["", ""] and len(house.sent) == 2
    load(b"return (", house.answers.append)
    house.acknowledge("ERR compiling", "ERR compiling")
    load(b"x" * MOST_SCRIPT_BYTES, house.answers.append)
    assert house.answers[2] == "ERR compiling" and "SCRIPT FLUSH" in house.answers[3]
    assert house.programs.scripts == [b"return 1"]
    load(None, house.answers.append)
    assert house.programs.scripts == [] and house.sent[-1][1] == ScriptsAre(house.sent[-1][1].id, [], True)
    house.acknowledge()
    assert house.answers[4:] == [""]


def test_what_was_kept() -> None:
    house = House()
    house.change("load", "a1")
    house.acknowledge()
    assert decode(house.kept[-1]) == [b"a1"]
    again = House()
    again.programs.start(b"")
    assert again.programs.libraries == []


def test_a_cluster_that_has_no_shard_up_changes_at_once() -> None:
    house = House()
    for child in house.children:
        child.conversation = None
    house.change("load", "a1")
    assert house.answers == [""] and texts(house.programs) == ["a1"]
