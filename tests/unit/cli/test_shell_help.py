"""``help`` in the shell, for commands that only the cluster knows."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kache.cli.conversation import Conversation
from kache.cli.shell import _help
from kache.commands.describe import docs
from kache.module.rows import rows_of
from kache.module.source import execute
from kache.wire.codec import decode_reply, encode_reply

SOURCE = """
from kache.module import command
@command("take")
def take(ctx, key, limit, window=b"1", *more):
    "Takes one."
@command("all", keys="1..-1", syntax="key [key ...]")
def every(ctx, *keys):
    "Takes all."
"""
RESP2, RESP3 = 2, 3


class Cluster:
    """Answers COMMAND DOCS in a dialect."""

    def __init__(self, dialect: int) -> None:
        self.dialect = dialect
        self.rows = {name: row for name, (row, _) in rows_of(execute("sample", "/nowhere/sample.py", SOURCE)).items()}

    def request(self, words: list[bytes]) -> Any:
        assert words[:2] == [b"COMMAND", b"DOCS"]
        row = self.rows.get(words[2].decode().lower())
        found = {} if row is None else {row.name.encode(): docs(row, self.dialect)}
        return decode_reply(encode_reply(found, self.dialect))[0]


@pytest.mark.parametrize("dialect", [RESP2, RESP3])
def test_commands_of_modules_are_explained(dialect: int, capsys: pytest.CaptureFixture[str]) -> None:
    def said(name: bytes) -> str:
        _help(cast(Conversation, Cluster(dialect)), [b"help", name])
        return capsys.readouterr().out

    about = "\n\nComplexity: O(1). A command of a module.\n"
    assert said(b"take") == "TAKE key limit [window] [more ...]\n\nTakes one." + about
    assert said(b"ALL") == "ALL key [key ...]\n\nTakes all." + about
    assert said(b"tak") == "There is no command 'tak'.\n" and said(b"get").startswith("GET key\n")
