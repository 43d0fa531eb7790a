"""Log lines: one clear line per event, as text or as JSON.

Owns the set-up of `logging` in every process of a cluster; everything else just uses
``logging.getLogger("kache")``. Levels carry Redis's names: debug, verbose, notice, warning.
"""

from __future__ import annotations

import logging
import os
import time

from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["VERBOSE", "set_level", "set_up"]

VERBOSE = 15
_LEVELS = {"debug": logging.DEBUG, "verbose": VERBOSE, "notice": logging.INFO, "warning": logging.WARNING}
_NAMES = {logging.DEBUG: "debug", VERBOSE: "verbose", logging.INFO: "notice", logging.WARNING: "warning"}


class _Text(logging.Formatter):
    """``2026-01-31 12:00:00.123 notice shard 2: the event``."""

    def __init__(self, process: str) -> None:
        super().__init__()
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


def set_up(config: Config, process: str) -> None:
    """Send this process's log where `config` says; `process` is its name in every line ("shard 2").

    Raises KacheError when the log file cannot be written.
    """
    handler: logging.Handler
    if config.logfile:
        from logging.handlers import WatchedFileHandler  # follows a file that log rotation has moved away

        try:
            handler = WatchedFileHandler(config.logfile, encoding="utf-8")
        except OSError as error:
            raise KacheError(f"The log file {config.logfile} cannot be written: {error.strerror}.") from None
    else:
        handler = logging.StreamHandler()
    handler.setFormatter((_Json if config.logformat == "json" else _Text)(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(config)


def set_level(config: Config) -> None:
    """Take in a changed loglevel."""
    logging.getLogger().setLevel(_LEVELS[config.loglevel])
