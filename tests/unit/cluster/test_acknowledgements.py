"""Who is told when about a change of the configuration."""

from __future__ import annotations

from kache.cluster.acknowledgements import ACK_SECONDS, Acknowledgements


def test_the_last_acknowledgement_answers_once() -> None:
    changes, told = Acknowledgements(), []
    number = changes.next_id()
    changes.begin(number, ["shard 0", "router 0"], 0.0, told.append)
    changes.acknowledged(number, "shard 0")
    changes.acknowledged(number, "shard 0")
    changes.acknowledged(number + 1, "router 0")
    assert told == []
    changes.acknowledged(number, "router 0")
    changes.acknowledged(number, "router 0")
    assert (told, changes.deadlines()) == ([""], [])


def test_a_child_that_ends_counts_as_told() -> None:
    changes, told = Acknowledgements(), []
    for _ in range(2):
        changes.begin(changes.next_id(), ["shard 0"], 0.0, told.append)
    changes.gone("shard 0")
    assert told == ["", ""]


def test_nobody_to_tell() -> None:
    told: list[str] = []
    Acknowledgements().begin(1, [], 0.0, told.append)
    assert told == [""]


def test_a_late_child_is_named() -> None:
    changes, told = Acknowledgements(), []
    number = changes.next_id()
    changes.begin(number, ["shard 1", "shard 0"], 5.0, told.append)
    assert changes.deadlines() == [5.0 + ACK_SECONDS]
    changes.expire(5.0 + ACK_SECONDS - 0.001)
    assert told == []
    changes.expire(5.0 + ACK_SECONDS)
    assert told == ["shard 0, shard 1 did not acknowledge in time; the change holds once it does"]
    changes.acknowledged(number, "shard 0")
    assert len(told) == 1


def test_a_question_has_its_own_time() -> None:
    changes, told = Acknowledgements(), []
    changes.begin(changes.next_id(), ["router 1"], 5.0, told.append, 1.0)
    assert changes.deadlines() == [6.0]
    changes.expire(6.0)
    assert len(told) == 1
