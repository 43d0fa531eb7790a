"""The rules that say what a user may take."""

from __future__ import annotations

import pytest

from kache.acl.record import Limits, UserRecord
from kache.acl.rights import Users
from kache.acl.rules import RuleError, apply, describe


def limited(*rules: str) -> UserRecord:
    return apply(UserRecord(b"ada"), [rule.encode() for rule in rules])


@pytest.mark.parametrize(
    ("rules", "limits"),
    [
        (["limit:clients=100"], Limits(clients=100)),
        (["limit:commands=20000", "limit:commands=5"], Limits(commands=5)),
        (["limit:memory=64mb", "LIMIT:Input=50k"], Limits(memory=64 << 20, input=50_000)),
        (["limit:clients=3", "limit:clients=0"], Limits()),
        (["limit:clients=3", "limit:memory=1gb", "resetlimits"], Limits()),
        (["limit:clients=3", "reset"], Limits()),
    ],
)
def test_what_they_say(rules: list[str], limits: Limits) -> None:
    assert limited(*rules).limits == limits


@pytest.mark.parametrize(
    "rule",
    ["limit:", "limit:clients", "limit:clients=", "limit:clients=-1", "limit:clients=many", "limit:keys=1", "limit:memory=1x",
     "limit:commands=1.5", "limit:commands=1000000000001", "limit:clients=\xff", "(limit:clients=1)"],
)  # fmt: skip
def test_what_is_none(rule: str) -> None:
    with pytest.raises(RuleError):
        apply(UserRecord(b"ada"), [rule.encode("latin-1")])


def test_their_description_makes_the_same_user() -> None:
    ada = limited(
        "on", ">pw", "limit:memory=1536kb", "limit:clients=7", "limit:input=1000", "limit:commands=9", "~a*", "+get"
    )
    rules = describe(ada)
    assert b" limit:clients=7 limit:commands=9 limit:input=1000 limit:memory=1536kb " in rules
    assert apply(UserRecord(b"ada"), rules.split()) == ada
    assert b"limit" not in describe(limited("on"))


def test_the_compiled_user_has_them() -> None:
    users = Users([apply(UserRecord(b"ada", 7), [b"limit:commands=5"]), UserRecord(b"bob", 8)])
    ada, bob = users.by_name[b"ada"], users.by_name[b"bob"]
    assert (ada.paced, ada.most_commands, ada.most_clients) == (True, 5, 0)
    assert not bob.paced
    users.take(2, [UserRecord(b"ada", 7)], [])
    assert not ada.paced
