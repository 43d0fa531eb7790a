"""What the strategies of all types share: keys from a small pool, values of every size and shape, hostile numbers.

Small pools on purpose: two commands must often meet in the same key, or a sequence tests nothing.
All keys carry one hash tag (`TAG`), so that multi-key commands work on any number of shards; `untagged_keys` do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from .wire import Arg

Command = tuple[Arg, ...]
Commands = st.SearchStrategy[Command]

TAG = "{t}"

keys = st.sampled_from([f"{TAG}{name}" for name in ("a", "b", "c", "d")])
untagged_keys = st.sampled_from([f"k{number}" for number in range(8)])

LIMIT_INTEGERS = (
    2**31 - 1,
    2**31,
    -(2**31),
    -(2**31) - 1,
    2**32,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
)
NOT_INTEGERS = ("", "x", " 1", "1 ", "+1", "01", "-0", "1.5", "1e3", "0x10", "--1", "-", "99999999999999999999")
NOT_FLOATS = ("", "x", " 1", "1 ", "nan", "-nan", "0x1p", "1e", "--1", "1,5", "infinit")
FLOAT_TEXTS = (
    "0",
    "1",
    "-1",
    "1.5",
    "-2.25",
    "3.0e3",
    "1e-5",
    "0.1",
    "5e17",
    "123456789.123",
    "inf",
    "-inf",
    "+inf",
    "1e400",
    "0x1p3",
)

small_integers = st.integers(-6, 12)
limit_integers = st.sampled_from(LIMIT_INTEGERS)
not_integers = st.sampled_from(NOT_INTEGERS)
integers: st.SearchStrategy[Arg] = st.one_of(
    small_integers, small_integers, small_integers, limit_integers, not_integers
)
"""Where a command wants an integer: mostly small, sometimes at a limit, sometimes none."""

floats: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-5, 5),
    st.sampled_from(FLOAT_TEXTS),
    st.floats(-1e6, 1e6, allow_nan=False).map(repr),
    st.sampled_from(NOT_FLOATS),
)
"""Where a command wants a float."""

values: st.SearchStrategy[Arg] = st.one_of(
    st.integers(-100, 100),
    limit_integers,
    st.sampled_from(["", "0", "abc", "hello world", "3.0e3", "1.5", " 7", "007", "x" * 45, "y" * 200]),
    st.binary(max_size=12),
)
"""A string value: numbers, near-numbers, texts, bytes."""

words: st.SearchStrategy[Arg] = st.sampled_from(
    ["", "a", "b", "c", "d", "e", "f", "1", "2", "-3", "10", "member", "z" * 70]
)
"""Members and fields from a small pool."""

patterns = st.sampled_from(
    [
        "*",
        "**",
        "?",
        "{t}*",
        "*a",
        "{t}[ab]",
        "{t}[^a]",
        "{t}[b-a]",
        "{t}[",
        "[",
        "\\*",
        "{t}\\a",
        "*[a-",
        "",
        "{t}?",
        "*t*b",
        "{t}[a-c]*",
    ]
)


def command(name: str, *parts: st.SearchStrategy[Arg] | Arg) -> Commands:
    """The command `name` with one argument from each part."""
    fixed = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(st.just(name), *fixed)


def options(*choices: Sequence[st.SearchStrategy[Arg] | Arg], most: int = 3) -> st.SearchStrategy[list[Arg]]:
    """Up to `most` of the options, any order, repeats and conflicts included; an option is a word and its arguments."""
    each = st.one_of(
        *(
            st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in choice))
            for choice in choices
        )
    )
    return st.lists(each, max_size=most).map(lambda picked: [arg for option in picked for arg in option])


def with_options(base: Commands, tail: st.SearchStrategy[list[Arg]]) -> Commands:
    """A command followed by what `tail` draws."""
    return st.tuples(base, tail).map(lambda both: (*both[0], *both[1]))


def several(name: str, part: st.SearchStrategy[Arg], smallest: int = 1, largest: int = 4) -> Commands:
    """A command with a list of equal arguments (DEL, MGET, SADD's tail …)."""
    return st.lists(part, min_size=smallest, max_size=largest).map(lambda args: (name, *args))


def any_case(word: str) -> st.SearchStrategy[Arg]:
    """A word in its own, lower or upper case: options are case-insensitive."""
    return st.sampled_from([word, word.lower(), word.capitalize()])


def sequences(*commands: Commands, longest: int = 20) -> st.SearchStrategy[list[Command]]:
    """A sequence of commands, each drawn from one of the strategies."""
    return st.lists(st.one_of(*commands), min_size=1, max_size=longest)
