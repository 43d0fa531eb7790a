"""Changes of the configuration: one after the other, stored when tried, taken back when refused."""

from __future__ import annotations

from collections.abc import Callable

from kache.cluster.acknowledgements import Acknowledgements
from kache.cluster.changes import Changes
from kache.config.changing import changed
from kache.config.settings import Config


class Owner:
    """Keeps what it is asked; the test says how a trial ends."""

    def __init__(self) -> None:
        self.config = Config()
        self.trials: list[tuple[Config, Callable[[str], None], Callable[[str], None]]] = []
        self.taken_back = 0

    def try_out(self, wanted: Config, accept: Callable[[str], None], refuse: Callable[[str], None]) -> None:
        self.trials.append((wanted, accept, refuse))

    def take_back(self) -> None:
        self.taken_back += 1

    def store(self, wanted: Config) -> None:
        self.config = wanted


def asked(changes: Changes, told: list[str], **values: str) -> None:
    changes.ask(lambda config: changed(config, values), told.append)


def test_a_change_is_stored_once_it_was_tried() -> None:
    owner, told = Owner(), []
    asked(Changes(owner), told, timeout="5")
    assert (owner.config.timeout, told) == (0, [])
    owner.trials[0][1]("shard 1 is late")
    assert (owner.config.timeout, told) == (5, ["shard 1 is late"])


def test_a_refused_one_is_taken_back_and_the_next_is_made_of_what_holds() -> None:
    owner, told = Owner(), []
    changes = Changes(owner)
    asked(changes, told, timeout="5")
    asked(changes, told, hz="20")
    asked(changes, told, hz="nonsense")
    assert len(owner.trials) == 1
    owner.trials[0][2]("shard 0 cannot")
    assert (owner.taken_back, told) == (1, ["nothing was changed: shard 0 cannot"])
    wanted, accept, _ = owner.trials[1]
    assert (wanted.timeout, wanted.hz) == (0, 20)
    accept("")
    assert owner.config.hz == 20
    assert told[1] == "" and told[2].startswith("hz must be a whole number")


def test_a_refusal_is_told_when_all_have_answered() -> None:
    changes, told, refused = Acknowledgements(), [], []
    number = changes.next_id()
    changes.begin(number, ["shard 0", "shard 1", "router 0"], 0.0, told.append, refuse=refused.append)
    assert changes.acknowledged(number, "shard 0", "too much")
    assert not changes.acknowledged(number, "shard 0", "too much")
    changes.gone("router 0")
    assert refused == []
    assert changes.acknowledged(number, "shard 1")
    assert (told, refused) == ([], ["shard 0 cannot take it in: too much"])
    assert not changes.acknowledged(number, "shard 1")


def test_a_refusal_counts_although_others_are_late() -> None:
    changes, told, refused = Acknowledgements(), [], []
    number = changes.next_id()
    changes.begin(number, ["shard 0", "shard 1"], 0.0, told.append, refuse=refused.append)
    changes.acknowledged(number, "shard 0", "too much")
    changes.expire(100.0)
    assert (told, refused) == ([], ["shard 0 cannot take it in: too much"])
