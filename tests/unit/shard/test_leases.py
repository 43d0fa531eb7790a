"""Key leases: all or none, released by token, gone at their deadline."""

from __future__ import annotations

import random

import pytest

from kache.errors import CommandError
from kache.shard.service.leases import Leases


def test_taking_is_all_or_none() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a"], 0)
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.take(b"two", 100, 0, [b"b", b"a"], 0)
    leases.check(0, [b"b"], 0)
    leases.take(b"two", 100, 1, [b"a"], 0)  # the same name in another database
    leases.verify()


def test_writes_are_refused_until_the_end() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a"], 0)
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.check(0, [b"x", b"a"], 99)
    assert leases.release(b"one", 99) == 1
    leases.check(0, [b"a"], 99)
    assert not leases.held
    assert leases.release(b"one", 99) == 0


def test_a_lease_ends_at_its_deadline() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a", b"b"], 0)
    assert leases.holds(b"one", 99)
    assert not leases.holds(b"one", 100)
    leases.check(0, [b"a"], 100)
    assert not leases.held
    leases.take(b"two", 100, 0, [b"a"], 0)
    leases.take(b"three", 300, 0, [b"a"], 200)
    assert leases.release(b"two", 200) == 0
    leases.verify()


def test_the_same_token_extends() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a"], 0)
    leases.take(b"one", 200, 0, [b"b"], 50)
    with pytest.raises(CommandError):
        leases.check(0, [b"a"], 150)
    assert leases.release(b"one", 150) == 2


def test_random_steps_keep_the_indexes_together() -> None:
    chance = random.Random(3)
    leases = Leases()
    for now in range(3000):
        token = bytes(chance.choices(b"xyz"))
        keys = [bytes((letter,)) for letter in chance.sample(b"abcdef", 2)]
        step = chance.choice(("take", "check", "release"))
        try:
            if step == "take":
                leases.take(token, now + chance.randint(-1, 20), chance.randint(0, 1), keys, now)
            elif step == "check":
                leases.check(0, keys, now)
            else:
                leases.release(token, now)
        except CommandError:
            continue
        finally:
            leases.verify()


def test_who_only_reads_shares() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a", b"b"], 0, shared=True)
    leases.take(b"two", 200, 0, [b"b"], 0, shared=True)
    for keys, shared in (([b"b"], False), ([b"c", b"a"], False)):
        with pytest.raises(CommandError, match=r"^TRYAGAIN"):
            leases.take(b"three", 100, 0, keys, 0, shared=shared)
    leases.verify()
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.check(0, [b"b"], 99)
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.check(0, [b"b"], 150)  # one has ended, the other not
    leases.verify()
    assert leases.release(b"two", 150) == 1
    leases.check(0, [b"a", b"b"], 150)
    leases.take(b"three", 300, 0, [b"b"], 150)
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.take(b"one", 300, 0, [b"b"], 150, shared=True)
    leases.verify()


def test_a_lease_is_extended_while_it_holds() -> None:
    leases = Leases()
    leases.take(b"one", 100, 0, [b"a"], 0)
    leases.extend(b"one", 200, 50)
    assert leases.holds(b"one", 150)
    with pytest.raises(CommandError, match=r"^TRYAGAIN"):
        leases.extend(b"one", 300, 200)
    leases.end_lapsed(200)
    assert not leases.held
