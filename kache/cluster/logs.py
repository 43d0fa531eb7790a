"""Log lines: one clear line per event, as text or as JSON.

Owns the set-up of `logging` in every process of a cluster; everything else just uses
``logging.getLogger("kache")``. Levels carry Redis's names: debug, verbose, notice, warning.
"""

from __future__ import annotations

import logging
import os
import time

from kache.cluster.progress import ERASE, on_terminal
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["VERBOSE", "set_level", "set_up", "tell_left_out"]

VERBOSE = 15
WINDOW_SECONDS = 10
LINES_IN_A_WINDOW = 20
"""Lines of one kind from one process: enough to see what happens, and some ten kilobytes in a minute."""
MOST_KINDS = 256
"""Lines are made of constant words; somebody may forget it."""
_LEVELS = {"debug": logging.DEBUG, "verbose": VERBOSE, "notice": logging.INFO, "warning": logging.WARNING}
_NAMES = {logging.DEBUG: "debug", VERBOSE: "verbose", logging.INFO: "notice", logging.WARNING: "warning"}


class _Text(logging.Formatter):
    """``2026-01-31 12:00:00.123 notice shard 2: the event``."""

    def __init__(self, process: str) -> None:
        super().__init__(validate=False)  # its format is not used
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = _NAMES.get(record.levelno, record.levelname.lower())
        line = f"{stamp}.{int(record.msecs):03d} {level} {self.process}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(_Text):
    """One JSON object per line, with time (RFC 3339, UTC), level, process, pid and message."""

    def format(self, record: logging.LogRecord) -> str:
        import json

        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "process": self.process,
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


class _Limiter(logging.Filter):
    """Lets few lines of one kind through in a while, and counts the others: no client may fill the disk.

    Lines are of a kind when they are made of the same words, whatever is filled in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "is_count", False):
            return True
        now = time.monotonic()
        kind = self._kinds.get(record.msg)
        if kind is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[record.msg] = _Kind(now)
        elif now - kind.since >= WINDOW_SECONDS:
            self._end(record.msg, kind, now)
        kind.lines += 1
        if kind.lines <= LINES_IN_A_WINDOW:
            return True
        kind.last = record
        return False

    def tell_left_out(self) -> None:
        """Say how many lines are missing, of the kinds whose while is over."""
        now = time.monotonic()
        for words, kind in list(self._kinds.items()):
            if now - kind.since >= WINDOW_SECONDS:
                self._end(words, kind, now)
                del self._kinds[words]

    def _end(self, words: str, kind: _Kind, now: float) -> None:
        last, count = kind.last, kind.lines - LINES_IN_A_WINDOW
        kind.since, kind.lines, kind.last = now, 0, None
        if last is not None:
            text = "left out %d more lines such as: %s"
            count_line = logging.LogRecord(last.name, last.levelno, "", 0, text, (count, last.getMessage()), None)
            count_line.is_count = True
            logging.getLogger().handle(count_line)


class _Kind:
    """Lines of one kind since a moment: how many, and the last that was left out."""

    __slots__ = ("last", "lines", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.lines = 0
        self.last: logging.LogRecord | None = None


class _Lines(logging.Handler):
    """Appends every line in one write, so that those of several processes do not mix; to standard error without a path.

    What cannot be written, on a full disk say, is counted and told with the next line that can be. A file that log
    rotation has moved away is opened anew.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._lost = 0
        self._fd = 2
        # On a terminal a bar may stand in the last line (kache/cluster/progress.py).
        self._erase = "" if path or not on_terminal() else ERASE
        if path:
            self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._follow()
            lost = f"{self.format(self._loss())}\n" if self._lost else ""
            self._write(f"{self._erase}{lost}{self.format(record)}\n".encode("utf-8", "backslashreplace"))
            self._lost = 0
        except Exception:
            # There is no other place to say so.
            self._lost += 1

    def _follow(self) -> None:
        if not self._path:
            return
        try:
            moved = not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            moved = True
        if moved:
            fd = self._open()
            os.close(self._fd)
            self._fd = fd

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._fd, line) :]

    def _loss(self) -> logging.LogRecord:
        text = "%d lines could not be written here"
        return logging.LogRecord("kache", logging.WARNING, "", 0, text, (self._lost,), None)

    def close(self) -> None:
        if self._fd > 2:
            os.close(self._fd)
            self._fd = 2
        super().close()


_limiter = _Limiter()


def set_up(config: Config, process: str) -> None:
    """Send this process's log where `config` says; `process` is its name in every line ("shard 2").

    Raises KacheError when the log file cannot be written.
    """
    global _limiter
    try:
        handler = _Lines(config.logfile)
    except OSError as error:
        path = os.path.abspath(config.logfile)
        raise KacheError(f"The log file {path} cannot be written: {error.strerror}.") from None
    _limiter = _Limiter()
    handler.addFilter(_limiter)
    text = config.logformat == "text" or (config.logformat == "auto" and not config.logfile and os.isatty(2))
    handler.setFormatter((_Text if text else _Json)(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(config)


def set_level(config: Config) -> None:
    """Take in a changed loglevel."""
    logging.getLogger().setLevel(_LEVELS[config.loglevel])


def tell_left_out() -> None:
    """Say how many lines of which kind were left out; to be called now and then."""
    _limiter.tell_left_out()
