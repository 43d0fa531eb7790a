"""Log lines: few of one kind in a while, a count of the others, and a file that fills up or is moved away."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kache.cluster import logs
from kache.config.settings import Config
from kache.errors import KacheError

log = logging.getLogger("kache.test")


class Clock:
    """The time of day, as a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logs.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def lines_of(path: Path) -> list[str]:
    return [line.split(": ", 1)[1] for line in path.read_text().splitlines()]


def test_few_lines_of_a_kind_and_a_count(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log"
    logs.set_up(Config(logfile=str(path), logformat="text"), "test")
    for number in range(1000):
        log.warning("an attack from %s", number)
    log.warning("something else")
    logs.tell_left_out()
    assert len(lines_of(path)) == logs.LINES_IN_A_WINDOW + 1
    clock.now += logs.WINDOW_SECONDS
    logs.tell_left_out()
    logs.tell_left_out()
    left = 1000 - logs.LINES_IN_A_WINDOW
    assert lines_of(path)[-1] == f"left out {left} more lines such as: an attack from 999"
    assert len(lines_of(path)) == logs.LINES_IN_A_WINDOW + 2
    log.warning("an attack from %s", "anew")
    assert lines_of(path)[-1] == "an attack from anew"


def test_the_count_comes_with_the_next_line_too(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "log"
    logs.set_up(Config(logfile=str(path), logformat="text"), "test")
    for _ in range(logs.LINES_IN_A_WINDOW + 5):
        log.warning("again")
    clock.now += logs.WINDOW_SECONDS
    log.warning("again")
    assert lines_of(path)[-2:] == ["left out 5 more lines such as: again", "again"]


def test_kinds_that_never_end_are_not_remembered(tmp_path: Path, clock: Clock) -> None:
    logs.set_up(Config(logfile=str(tmp_path / "log")), "test")
    for number in range(10 * logs.MOST_KINDS):
        log.warning(f"a line of its own {number}")
    assert len(logs._limiter._kinds) <= logs.MOST_KINDS


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs.set_up(Config(logfile=str(path), logformat="text"), "test")
    log.warning("one")
    path.rename(tmp_path / "log.1")
    log.warning("two")
    assert (lines_of(tmp_path / "log.1"), lines_of(path)) == (["one"], ["two"])


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    logs.set_up(Config(logfile=str(path), logformat="text"), "test")
    path.unlink()
    path.symlink_to("/dev/full")
    for _ in range(3):
        log.warning("lost")
    path.unlink()
    log.warning("back")
    assert lines_of(path) == ["3 lines could not be written here", "back"]
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(KacheError, match="The log file /none/log cannot be written: No such file or directory"):
        logs.set_up(Config(logfile="/none/log"), "test")


SAY = "import logging; from kache.cluster import logs; from kache.config.settings import Config; " + (
    "logs.set_up(Config({}), 'test'); logging.getLogger('kache').warning('hello')"
)


def test_text_on_a_terminal_and_json_elsewhere(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", SAY.format("")], stderr=slave, check=True, timeout=60)
        assert os.read(master, 4096).decode().strip().endswith(" warning test: hello")
        # A file is read by machines, whatever the terminal is.
        path = tmp_path / "log"
        subprocess.run(
            [sys.executable, "-c", SAY.format(f"logfile={str(path)!r}")], stderr=slave, check=True, timeout=60
        )
        assert json.loads(path.read_text())["message"] == "hello"
    finally:
        os.close(master)
        os.close(slave)
    piped = subprocess.run(
        [sys.executable, "-c", SAY.format("")], capture_output=True, text=True, check=True, timeout=60
    )
    event = json.loads(piped.stderr)
    assert (event["level"], event["process"], event["message"]) == ("warning", "test", "hello")
    forced = subprocess.run(
        [sys.executable, "-c", SAY.format("logformat='text'")], capture_output=True, text=True, check=True, timeout=60
    )
    assert forced.stderr.endswith(" warning test: hello\n")
