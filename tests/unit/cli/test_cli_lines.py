"""What is typed at ``kache shell``: what history must not keep, when a line goes on, and what was meant by a wrong name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kache.cli import lines
from kache.cli.main import _meant
from kache.config.kinds import nearest_word, slips


@pytest.mark.parametrize(
    "line",
    [
        "auth sesame",
        "AUTH ada sesame",
        "  Auth 'open sesame'",
        "hello 3 auth default sesame",
        "HELLO 3 SETNAME me AUTH default sesame",
        "config set requirepass sesame",
        "CONFIG SET maxmemory 1gb RequirePass sesame",
        'config set "requirepass" sesame',
        "acl setuser ada on >sesame",
        "migrate h 1 k 0 100 AUTH sesame",
        'auth "sesame',
    ],
)
def test_lines_with_passwords(line: str) -> None:
    assert lines.keeps_secret(line)


@pytest.mark.parametrize(
    "line",
    ["", "get auth", "set hello auth", "hello 3", "config get requirepass", "config set maxmemory 1gb", "acl list"],
)
def test_lines_without(line: str) -> None:
    assert not lines.keeps_secret(line)


@pytest.mark.parametrize("line", ['set k "a', "set k 'a", "set k \\", 'set k "a\\'])
def test_unfinished(line: str) -> None:
    assert lines.is_unfinished(line)


@pytest.mark.parametrize("line", ["", "set k a", 'set k "a"', "set k 'it\\'s'", "set k a\\\\"])
def test_finished(line: str) -> None:
    assert not lines.is_unfinished(line)


def test_a_line_is_read_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    typed = iter(['set k "one', 'two"', "mset a 1 \\", "b 2"])
    prompts: list[str] = []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return next(typed)

    def none(_path: str | None) -> Any:
        return None

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(lines, "_fancy_reader", none)
    monkeypatch.setattr(lines, "_plain_reader", lambda _path: read)
    whole = lines.reader()
    assert whole("> ") == 'set k "one\ntwo"'
    assert whole("> ") == "mset a 1  b 2"
    assert prompts == ["> ", "... ", "> ", "... "]
    assert (tmp_path / "kache" / "history").stat().st_mode & 0o077 == 0


def test_without_a_place_for_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert lines._history_file() is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stop", "cluster stop"),
        ("start", "cluster start"),
        ("status", "cluster status"),
        ("settngs", "cluster settings"),
        ("restart", "cluster restart"),
        ("statz", "stats"),
        ("shel", "shell"),
        ("benhc", "bench"),
        ("gte", "get"),
        ("hgetal", "hgetall"),
        ("ZREVRANGEBYSCOR", "zrevrangebyscore"),
    ],
)
def test_what_was_meant(typed: str, meant: str) -> None:
    assert _meant(typed) == f" Did you mean '{meant}'?"


@pytest.mark.parametrize("typed", ["xyzzy", "frobnicate", "q", "123"])
def test_nothing_was_meant(typed: str) -> None:
    assert _meant(typed) == ""


def test_slips() -> None:
    assert [slips(*pair) for pair in (("", "abc"), ("abc", "abc"), ("acb", "abc"), ("ab", "abc"), ("xbc", "abc"))] == [
        3,
        0,
        1,
        1,
        1,
    ]
    assert nearest_word("max_memory", ["maxclients", "maxmemory"]) == "maxmemory"
