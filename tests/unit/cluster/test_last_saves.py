"""Who has saved for the last time, who could not, and who is not asked."""

from __future__ import annotations

import pytest

from kache.cluster.children import Child
from kache.cluster.last_saves import LastSaves
from kache.cluster.messages import Down, LastSave


class Shards:
    """Three shards and a router, all of which serve."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Down]] = []
        self.answers: list[str] = []
        self.children = [Child("shard", index, "", pid=9, ready_at=1.0) for index in range(3)]
        self.children.append(Child("router", 0, "", pid=9, ready_at=1.0))
        self.saves = LastSaves(self.children, lambda child, message: self.told.append((child.name, message)))

    def ask(self, save: bool | None = None) -> int:
        """The number under which they are asked."""
        self.told.clear()
        self.saves.ask(save, self.answers.append)
        asked = {message.id for _, message in self.told if isinstance(message, LastSave) and message.save is save}
        assert len(asked) == 1
        return asked.pop()


@pytest.fixture
def shards() -> Shards:
    return Shards()


def test_all_are_asked_at_once_and_all_are_waited_for(shards: Shards) -> None:
    number = shards.ask(True)
    assert [name for name, _ in shards.told] == ["shard 0", "shard 1", "shard 2"]
    shards.saves.answered(2, number, "")
    shards.saves.answered(2, number, "twice")
    shards.saves.answered(0, number, "")
    assert shards.answers == []
    shards.saves.answered(1, number, "")
    assert shards.answers == [""]


def test_what_could_not_be_saved_is_told_in_order(shards: Shards) -> None:
    number = shards.ask()
    shards.saves.answered(2, number, "No space left on device")
    shards.children[0].reason = "killed by SIGKILL"
    shards.saves.gone(shards.children[0], in_order=False)
    shards.children[0].reason = "again"
    shards.saves.gone(shards.children[0], in_order=False)
    shards.saves.answered(1, number, "")
    assert shards.answers == ["shard 0: it has ended: killed by SIGKILL; shard 2: No space left on device"]


def test_who_holds_nothing_is_not_asked(shards: Shards) -> None:
    shards.children[0].pid = 0
    shards.children[1].ready_at = 0.0
    number = shards.ask()
    assert [name for name, _ in shards.told] == ["shard 2"]
    shards.saves.answered(2, number, "")
    shards.children[2].pid = 0
    shards.saves.ask(None, shards.answers.append)
    assert shards.answers == ["", ""]


def test_nobody_waits_for_one_that_is_silent(shards: Shards) -> None:
    number = shards.ask()
    shards.saves.answered(0, number, "")
    shards.saves.answered(2, number, "")
    shards.saves.look()
    assert shards.answers == []
    shards.children[1].unresponsive, shards.children[1].silent = True, 12.4
    shards.saves.look()
    assert shards.answers == ["shard 1: it has given no sign of life for 12 s"]
    shards.saves.answered(1, number, "")
    assert len(shards.answers) == 1


def test_a_late_answer_is_not_that_of_another_question(shards: Shards) -> None:
    first, second = shards.ask(), shards.ask()
    for shard in range(3):
        shards.saves.answered(shard, second, "")
    assert shards.answers == [""]
    shards.saves.answered(0, first, "late")
    for shard in (1, 2):
        shards.saves.answered(shard, first, "")
    assert shards.answers == ["", "shard 0: late"]


@pytest.mark.parametrize("code", [0, 1])
def test_one_that_is_being_restarted_is_waited_for_and_not_asked(shards: Shards, code: int) -> None:
    """It has answered before it was told to go, and answers nobody any more."""
    leaving = shards.children[1]
    leaving.restarting, leaving.state = True, "down"
    number = shards.ask()
    assert [name for name, _ in shards.told] == ["shard 0", "shard 2"]
    shards.saves.answered(0, number, "")
    shards.saves.answered(2, number, "")
    assert shards.answers == []
    leaving.reason = f"exited with status {code}"
    shards.saves.gone(leaving, in_order=code == 0)
    assert shards.answers == ["" if code == 0 else "shard 1: it has ended: exited with status 1"]


def test_one_that_is_asked_may_not_go_by_itself(shards: Shards) -> None:
    shards.ask()
    for child in shards.children[:3]:
        child.reason = "exited with status 0"
        shards.saves.gone(child, in_order=True)
    assert shards.answers == ["; ".join(f"shard {each}: it has ended: exited with status 0" for each in range(3))]
