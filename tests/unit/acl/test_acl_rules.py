"""Rules of ACL SETUSER without a server: what they make of a user, how a user is described, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kache.acl.catalogue import CATALOGUE, CATEGORIES, Catalogue
from kache.acl.file import AclFileError, load, parse, save
from kache.acl.record import DEFAULT, Selector, UserRecord, default_user
from kache.acl.rights import User, Users, matches
from kache.acl.rules import RuleError, UnmatchedError, allowed, apply, check_name, describe, words_of
from kache.commands import BY_KEY, TABLE
from kache.glob import compile_glob

NEW = UserRecord(b"someone")


def user(text: bytes) -> UserRecord:
    return apply(NEW, words_of(text.split()))


def may_run(text: bytes, *keys: str) -> list[bool]:
    rows, _ = allowed(user(text).root)
    return [BY_KEY[key].id in rows for key in keys]


def test_a_new_user_may_do_nothing_and_is_off() -> None:
    assert describe(NEW) == b"off resetchannels -@all"
    assert not allowed(NEW.root)[0]


def test_the_default_user_may_do_everything() -> None:
    assert describe(default_user()) == b"on nopass ~* &* +@all"
    assert User(default_user()).unrestricted


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        (b"on >pw", b"on #30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4 resetchannels -@all"),
        (b"nopass >pw <pw", b"off resetchannels -@all"),
        (b">pw nopass", b"off nopass resetchannels -@all"),
        (b"~a* %R~b %W~c %RW~d %wr~e", b"off ~a* %R~b %W~c ~d ~e resetchannels -@all"),
        (b"%R~a %W~a", b"off ~a resetchannels -@all"),
        (b"%RW~* ~a", b"off %RW~* ~a resetchannels -@all"),
        (b"~a allkeys", b"off ~* resetchannels -@all"),
        (b"allkeys resetkeys ~b", b"off ~b resetchannels -@all"),
        (b"&a &b &a", b"off resetchannels &a &b -@all"),
        (b"+@all -@dangerous +keys -keys", b"off resetchannels +@all -@dangerous -keys"),
        (b"+config|get +config|set +config", b"off resetchannels -@all +config"),
        (b"+config -config|set", b"off resetchannels -@all +config -config|set"),
        (b"+select|0 +select|1", b"off resetchannels -@all +select|0 +select|1"),
        (b"+GET +@READ -@all", b"off resetchannels -@all"),
        (b"(+get ~a) (+set ~b &c)", b"off resetchannels -@all (~a resetchannels -@all +get) (~b resetchannels &c -@all +set)"),
        (b"(+get ~a) clearselectors on", b"on resetchannels -@all"),
        (b"on +@all ~* nopass (+get) reset", b"off resetchannels -@all"),
        (b"skip-sanitize-payload", b"off skip-sanitize-payload resetchannels -@all"),
    ],
)  # fmt: skip
def test_rules_and_what_they_come_to(rules: bytes, shown: bytes) -> None:
    assert describe(user(rules)) == shown
    assert user(shown) == user(rules), "the description makes another user"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (b"nonsense", "Syntax error"),
        (b"+", "Syntax error"),
        (b"+nosuch", "Unknown command or category name in ACL"),
        (b"-nosuch", "Unknown command or category name in ACL"),
        (b"+@nosuch", "Unknown command or category name in ACL"),
        (b"+config|nosuch", "Unknown command or category name in ACL"),
        (b"-select|0", "Unknown command or category name in ACL"),
        (b"+config|get|a", "Allowing first-arg of a subcommand is not supported"),
        (b"+get|", "Syntax error"),
        (b"#abc", "64 characters"),
        (b"#" + b"A" * 64, "64 characters"),
        (b"<nothing", "does not exist"),
        (b"!" + b"0" * 64, "does not exist"),
        (b"~* ~a", "Adding a pattern after the * pattern"),
        (b"&* &a", "Adding a pattern after the * pattern"),
        (b"%~a", "Syntax error"),
        (b"%RR~a", "Syntax error"),
        (b"%R", "Syntax error"),
        (b"%X~a", "Syntax error"),
        (b"(on)", "Syntax error"),
        (b"(+get (+set))", "Syntax error"),
        (b"db=1", "databases are not supported"),
        (b"~" + b"x" * 1025, "at most 1024 bytes"),
    ],
)
def test_what_is_refused_and_why(rules: bytes, reason: str) -> None:
    with pytest.raises(RuleError, match="Error in ACL SETUSER modifier") as caught:
        user(rules)
    assert reason in caught.value.reason


def test_no_password_is_in_an_error() -> None:
    with pytest.raises(RuleError) as caught:
        apply(NEW, [b"<hunter2"])
    assert "hunter2" not in str(caught.value)


def test_a_selector_must_be_closed() -> None:
    with pytest.raises(UnmatchedError, match=r"starting at '\(\+get'"):
        words_of([b"on", b"(+get", b"~a"])
    assert words_of([b"on", b"(+get", b"~a)", b"off"]) == [b"on", b"(+get ~a)", b"off"]


@pytest.mark.parametrize("name", [b"", b"a b", b"a\0b", b"a\n", b"x" * 129])
def test_names_that_no_user_can_have(name: bytes) -> None:
    assert check_name(name)


def test_containers_and_their_subcommands() -> None:
    assert may_run(b"+config", "config|get", "config|set") == [True, True]
    assert may_run(b"+config -config|set", "config|get", "config|set") == [True, False]
    assert may_run(b"+@all -config +config|get", "config|get", "config|set", "get") == [True, False, True]


def test_a_variant_of_the_binary_protocol_is_the_same_command() -> None:
    assert may_run(b"+del", "del", "binary|del") == [True, True]
    assert may_run(b"+@write -del", "del", "binary|del", "set") == [False, False, True]


def test_commands_beside_the_table_come_and_go() -> None:
    catalogue = Catalogue(TABLE)
    row = msgspec.structs.replace(BY_KEY["get"], name="shop.buy", id=9000, flags=frozenset({"write"}), group="string")
    with pytest.raises(RuleError):
        apply(NEW, [b"+shop.buy"], catalogue)
    catalogue.take_modules([row])
    everything, some, one = (
        apply(NEW, rules, catalogue) for rules in ([b"+@all"], [b"+@all", b"-@write"], [b"+@read", b"+SHOP.buy"])
    )
    assert [9000 in allowed(each.root, catalogue)[0] for each in (everything, some, one)] == [True, False, True]
    catalogue.take_modules([])
    assert not any(9000 in allowed(each.root, catalogue)[0] for each in (everything, some, one))


def test_first_arguments() -> None:
    rows, firsts = allowed(user(b"+select|0 +select|7 +get +get|a").root)
    assert firsts == {BY_KEY["select"].id: [b"0", b"7"]}
    assert BY_KEY["get"].id in rows and BY_KEY["select"].id not in rows
    assert allowed(user(b"+select|0 -select").root)[1] == {}


def test_every_category_names_commands() -> None:
    assert [name for name in CATEGORIES if not CATALOGUE.names_in(name) and name not in (b"scripting",)] == []


def test_too_many_patterns_are_refused() -> None:
    many = [b"~%d" % number for number in range(1024)]
    assert len(apply(NEW, many).root.keys) == 1024
    with pytest.raises(RuleError, match="at most 1024"):
        apply(NEW, [*many, b"~more"])


RULES = st.lists(
    st.sampled_from(
        b"on off nopass resetpass reset >a <a >b +@all -@all +get -get +config +config|get -config|set +@read -@write "
        b"+@dangerous +select|0 ~* ~a* %R~b %W~b %RW~* resetkeys &* &c resetchannels (+get_~x) (+@all_%R~y_&z) "
        b"clearselectors skip-sanitize-payload".split()
    )
    | st.binary(max_size=12),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(RULES)
def test_any_bytes_are_rules_or_a_refusal_and_descriptions_come_back(rules: list[bytes]) -> None:
    made = NEW
    for rule in rules:
        try:
            made = apply(made, words_of([rule.replace(b"_", b" ")]))
        except (RuleError, UnmatchedError):
            continue
    again = apply(NEW, words_of(describe(made).split()))
    assert again == made
    User(made)


@settings(max_examples=500, deadline=None)
@given(
    st.text("ab*?[]^-\\\xff", max_size=12).map(lambda text: text.encode("latin-1")),
    st.text("ab^-]\xff", max_size=12).map(lambda text: text.encode("latin-1")),
)
def test_patterns_mean_what_they_mean_to_keys(pattern: bytes, text: bytes) -> None:
    assert matches(pattern, text) == compile_glob(pattern)(text)


def test_a_hostile_pattern_takes_no_longer_than_its_length_times_the_keys() -> None:
    assert not matches(b"a*" * 500 + b"b", b"a" * 10_000)


def test_rights_of_keys_and_channels() -> None:
    one = User(user(b"%R~r* %W~w* ~both %R~*mixed &news &*end"))
    assert [one.may_touch(b"r1", rights) for rights in (0, 1, 2, 3)] == [True, True, False, False]
    assert [one.may_touch(b"w1", rights) for rights in (0, 1, 2, 3)] == [True, False, True, False]
    assert one.may_touch(b"both", 3) and not one.may_touch(b"both2", 0) and one.may_touch(b"r-mixed", 1)
    assert one.may_hear(b"news") and not one.may_hear(b"new") and one.may_hear(b"the end")
    assert one.may_hear(b"*end", True) and not one.may_hear(b"the end", True)
    assert one.may_read_under(b"r") and one.may_read_under(b"r1") and not one.may_read_under(b"w")
    assert not one.may_read_under(b"") and not one.may_read_under(b"bot")
    assert not one.may_read_all() and User(user(b"%R~*")).may_read_all()


def test_users_change_in_place() -> None:
    users = Users([apply(UserRecord(b"a", 5), [b"on", b"~x"])], 1)
    one = users.by_name[b"a"]
    users.take(2, [apply(UserRecord(b"a", 5), [b"+@all", b"~*", b"&*"])], [])
    assert users.by_name[b"a"] is one and one.unrestricted and not one.enabled and users.epoch == 2
    users.take(3, [], [b"a"])
    assert one.gone and not one.unrestricted and users.by_number.keys() == {users.default.number}


# Files ----------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "users.acl")
    users = {b"b": user(b"on >x ~b* +@read"), b"a\xff": NEW, DEFAULT: default_user()}
    users = {name: UserRecord(name, 0, *_rest(one)) for name, one in users.items()}
    save(path, users)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert load(path) == {name: UserRecord(name, 0, *_rest(one)) for name, one in users.items()}
    assert os.listdir(tmp_path) == ["users.acl"]


def _rest(one: UserRecord) -> tuple[bool, bool, bool, tuple[str, ...], Selector, tuple[Selector, ...]]:
    return one.enabled, one.nopass, one.skip_sanitize, one.passwords, one.root, one.selectors


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b"user a on\nuser a off\n", "f:2: Duplicate user 'a'"),
        (b"\n# a comment\nuser\n", "f:3: a line has to begin with 'user' and a name"),
        (b"usr a on\n", "f:1:"),
        (b"user a nonsense\n", "f:1: Error in ACL SETUSER modifier 'nonsense'"),
        (b"user a (+get\n", "f:1: Unmatched parenthesis"),
        (b"user " + b"x" * 200, "f:1: A user's name has at most 128 bytes"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(text: bytes, where: str) -> None:
    with pytest.raises(AclFileError) as caught:
        parse(text, "f")
    assert str(caught.value).startswith(where)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.acl"
    path.write_bytes(b"user a on\n")
    path.chmod(0o640)
    with pytest.raises(AclFileError, match="0640"):
        load(str(path))
    with pytest.raises(AclFileError, match="cannot be read"):
        load(str(tmp_path / "none"))


def test_a_file_that_cannot_be_written_stays_whole(tmp_path: Path) -> None:
    with pytest.raises(AclFileError, match="cannot be written"):
        save(str(tmp_path / "none" / "users.acl"), {DEFAULT: default_user()})


def test_a_selector_that_its_description_would_end_is_refused() -> None:
    """As one word of SETUSER it could have such a pattern; in a file of users it would be two rules."""
    with pytest.raises(RuleError, match="Syntax error"):
        apply(UserRecord(b"ada"), [b"(+get ~x)(+get ~x) ~y)"])


def test_a_password_in_a_selector_is_not_repeated() -> None:
    with pytest.raises(RuleError) as refused:
        apply(UserRecord(b"ada"), [b"(>secret +get <secret)"])
    assert "secret" not in str(refused.value) and "+get" in str(refused.value)
