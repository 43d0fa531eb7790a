"""What a file declares as rows of the command table, and what is said of a file that is no module."""

from __future__ import annotations

import sys
import textwrap

import pytest

from kache.commands import Row
from kache.commands.describe import categories, docs, info
from kache.module.rows import rows_of, shape_of
from kache.module.source import ModuleError, execute, module_name

RESP2 = 2
HEAD = "from kache.module import command\n"


def rows(source: str, name: str = "sample") -> dict[str, Row]:
    """The rows of a file with this text."""
    declared = execute(name, f"/nowhere/{name}.py", HEAD + textwrap.dedent(source))
    return {command: row for command, (row, _) in rows_of(declared).items()}


def refusal(source: str) -> str:
    with pytest.raises(ModuleError) as refused:
        rows(source)
    return str(refused.value)


def test_a_row_follows_from_the_function() -> None:
    row = rows('''
        @command("ratelimit", flags="write fast", categories="string")
        def ratelimit(ctx, key: bytes, limit: bytes, window: bytes = b"1000") -> int:
            """Says whether a caller is within its limit.

            Not this.
            """
    ''')["ratelimit"]
    assert (row.arity, row.syntax, row.summary) == (
        -3,
        "key limit [window]",
        "Says whether a caller is within its limit.",
    )
    assert row.flags == {"write", "fast"} and row.route == "key" and row.legacy_range == (1, 1, 1)
    assert categories(row) == ["@string", "@write", "@fast"]
    described = docs(row, RESP2)
    assert described[b"group"] == b"module" and [each[b"name"] for each in described[b"arguments"]] == [
        b"key",
        b"limit",
        b"window",
    ]
    assert info(row, RESP2)[:2] == [b"ratelimit", -3]


@pytest.mark.parametrize(
    ("keys", "parameters", "arity", "found"),
    [
        ("1", "key", 2, (1, 1, 1)),
        ("2", "one, two", 3, (1, 2, 1)),
        ("'1..-1'", "key, *more", -2, (1, -1, 1)),
        ("'1..-1'", "*keys", -2, (1, -1, 1)),
        ("2", "*keys", -3, (1, 2, 1)),
        ("'1..-2'", "key, value, *more", -3, (1, -2, 1)),
        ("'2..3'", "field, key, other", 4, (2, 3, 1)),
        ("'#1'", "numkeys, *keys", -2, (0, 0, 0)),
    ],
)
def test_where_keys_are(keys: str, parameters: str, arity: int, found: tuple[int, int, int]) -> None:
    row = rows(f"@command('c', keys={keys}, flags='readonly')\ndef c(ctx, {parameters}): pass\n")["c"]
    assert (row.arity, row.legacy_range) == (arity, found)
    assert ("movablekeys" in row.flags) == (keys == "'#1'") and row.keys[0].access == "RO"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "it declares no command"),
        ("1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("def f(:", "line 2: SyntaxError: invalid syntax"),
        ("import nosuchlibrary", "line 2: ModuleNotFoundError: No module named 'nosuchlibrary'"),
        ("import sys; sys.exit(3)", "line 2: SystemExit: 3"),
        ("import threading; threading.Thread(target=threading.Event().wait, args=(1,), name='w', daemon=True).start()",
         "it starts a thread (w)"),
        ("@command('get')\ndef f(ctx, key): pass", "the command get: a command of that name is built in"),
        ("@command('config')\ndef f(ctx, key): pass", "the command config: a command of that name is built in"),
        ("@command('_x')\ndef f(ctx, key): pass", "'_x' cannot be the name of a command"),
        ("@command('Big')\ndef f(ctx, key): pass", "'Big' cannot be the name of a command"),
        ("@command('a b')\ndef f(ctx, key): pass", "'a b' cannot be the name of a command"),
        ("@command(7)\ndef f(ctx, key): pass", "'7' cannot be the name of a command"),
        ("@command('x', flags='write readonly')\ndef f(ctx, key): pass", "the command x: its flags say either write or readonly"),
        ("@command('x', flags='')\ndef f(ctx, key): pass", "the command x: its flags say either write or readonly"),
        ("@command('x', flags='write quick')\ndef f(ctx, key): pass", "the command x: there is no flag 'quick' for it; there are"),
        ("@command('x', keys=0)\ndef f(ctx): pass", "the command x: it needs a key"),
        ("@command('x', keys='1..0')\ndef f(ctx, key): pass", "the command x: keys is a number of arguments, a range such as"),
        ("@command('x', keys=1.5)\ndef f(ctx, key): pass", "the command x: keys is a number or a range, not 1.5"),
        ("@command('x', keys=2)\ndef f(ctx, key): pass", "the command x: its keys reach to argument 2, and its function may be called with 1"),
        ("@command('x')\ndef f(): pass", "the command x: its function must take the context first"),
        ("@command('x')\ndef f(ctx, key, *, more): pass", "the command x: arguments of a command have a place, and 'more'"),
        ("@command('x')\nasync def f(ctx, key): pass", "the command x: a command is a plain function"),
        ("@command('x')\ndef f(ctx, key): yield 1", "the command x: a command is a plain function"),
        ("@command('x', since='soon')\ndef f(ctx, key): pass", "the command x: since is a version"),
        ("@command('x', syntax='key [')\ndef f(ctx, key): pass", "the command x: missing ']'"),
        ("@command('x', categories='nice')\ndef f(ctx, key): pass", "the command x: there is no category 'nice'"),
        ("@command('x')\ndef f(ctx, key): pass\n@command('x')\ndef f(ctx, key): pass", "the command x: it is declared twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(source: str, text: str) -> None:
    assert refusal(source).startswith(text)


def test_two_functions_of_one_name_are_two_commands() -> None:
    assert list(rows("@command('a')\ndef f(ctx, key): pass\n@command('b')\ndef f(ctx, key): pass")) == ["a", "b"]


def test_a_function_stays_as_it_is() -> None:
    declared = execute(
        "sample", "/nowhere/sample.py", HEAD + "@command('double')\ndef double(ctx, key): return key * 2\n"
    )
    assert declared[0].function(None, b"x") == b"xx"
    assert shape_of(declared[0]).most == 1


def test_a_file_that_fails_leaves_the_one_before() -> None:
    rows("VERSION = 1\n@command('a')\ndef a(ctx, key): pass")
    before = sys.modules["kache_module_sample"]
    refusal("VERSION = 2\nraise ValueError")
    assert sys.modules["kache_module_sample"] is before


def test_a_module_is_called_as_its_file() -> None:
    assert module_name("/somewhere/app.py") == module_name("app") == "app"
    for wrong in ("/somewhere/", "my-app.py", "a b.py", "7.py"):
        with pytest.raises(ModuleError, match="is no name of letters"):
            module_name(wrong)
