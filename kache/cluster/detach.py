"""Running a cluster in the background: the command returns when the cluster answers, or with why it does not.

One that serves without some of its processes, which have shown that they cannot come up, goes on serving; but who started it
learns it from the exit status, too.

An attempt that fails leaves nothing behind that was not there before it: no log file, no run directory, no lock.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Collection

import msgspec

from kache.cluster import processes, run_dir
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["detached"]

LAST_LINES = 10
"""How much of its log is shown when it could not start."""

PATIENCE_SECONDS = 60.0
"""How long to wait for a cluster that keeps trying to start, for want of memory or descriptors, say."""

AT_WORK = (" loading: ", " dividing ")
"""Words of lines that shards log while they load, and the supervisor while it divides data over another number of them."""

Supervise = Callable[[Config, Callable[[str, bool], None]], int]


def detached(config: Config, supervise: Supervise, keep: Collection[int] = ()) -> int:
    """Run `supervise` in a process of its own session; returns the exit status of the command that started it.

    The background process logs to `config.logfile`, or to ``kache-<port>.log`` in its directory. `keep` are
    descriptors that it must not lose.
    """
    chosen = config.logfile
    config = msgspec.structs.replace(config, logfile=chosen or f"kache-{config.port or config.tls_port}.log")
    try:
        before = _Before(config)
        log = os.open(config.logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except KacheError as error:
        print(f"kache: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = "" if chosen else " It lies in --dir, where this cluster keeps its files; --logfile puts it elsewhere."
        path = os.path.abspath(config.logfile)
        print(f"kache: The log file {path} cannot be written: {error.strerror}.{where}", file=sys.stderr)
        return 1
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.close(log)
        os.waitpid(pid, 0)
        return _wait(reader, before)
    status = 1
    try:
        os.setsid()
        if os.fork():  # the session's leader ends, so that no terminal can ever become ours
            os._exit(0)
        os.write(writer, b"%d\n" % os.getpid())
        null = os.open(os.devnull, os.O_RDONLY)
        for ours, place in ((null, 0), (log, 1), (log, 2)):
            os.dup2(ours, place)
        processes.close_all_but({0, 1, 2, writer, *keep})
        status = _supervised(config, supervise, writer)
    finally:
        os._exit(status)


def _readable(line: str) -> str:
    """A line of a log, which may be JSON, for people."""
    try:
        event = json.loads(line)
        return f"{event['level']} {event['process']}: {event['message']}"
    except (ValueError, TypeError, KeyError):
        return line


class _Before:
    """What was there before an attempt."""

    def __init__(self, config: Config) -> None:
        self._log = config.logfile
        self._port = config.port or config.tls_port
        self._base = run_dir.base_directory(os.environ)
        self._had_base = os.path.isdir(self._base)
        self._had_log = os.path.exists(config.logfile)
        self._seen: list[str] = []
        self._logged = os.path.getsize(config.logfile) if self._had_log else 0

    def last_lines(self) -> list[str]:
        """The end of what the attempt logged."""
        if not os.path.isfile(self._log):
            return []  # a terminal or a pipe, where it can be read already
        try:
            with open(self._log, "rb") as file:
                file.seek(self._logged)
                said = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [_readable(line) for line in said.splitlines()[-LAST_LINES:]]

    def is_at_work(self) -> bool:
        """Whether what was logged of late says that data is loaded or divided, which takes as long as it takes."""
        lines = self.last_lines()
        before, self._seen = self._seen, lines
        return lines != before and any(word in line for line in lines for word in AT_WORK)

    def restore(self, pid: int) -> None:
        """Remove what the failed attempt of `pid` has left; lines in a log that was there before stay."""
        run_dir.sweep(self._base, self._port, pid)
        for stays, remove, path in ((self._had_base, os.rmdir, self._base), (self._had_log, os.unlink, self._log)):
            try:
                if not stays:
                    remove(path)
            except OSError:
                pass  # never made, or in use by another cluster


def _wait(reader: int, before: _Before) -> int:
    """Show the first words of the background process: its ready line, or why it could not start."""
    with os.fdopen(reader, encoding="utf-8") as file:
        pid = int(file.readline() or 0)
        try:
            late = not select.select([file], [], [], PATIENCE_SECONDS)[0]
            while late and before.is_at_work():
                late = not select.select([file], [], [], PATIENCE_SECONDS)[0]
            if late:
                os.kill(pid, signal.SIGTERM)
            said = file.read()
        except KeyboardInterrupt:
            if pid:
                os.kill(pid, signal.SIGTERM)
            file.read()  # until it has ended
            before.restore(pid)
            raise
    if said.startswith("+"):
        print(said[1:])
        return 0
    if said.startswith("!"):
        print(f"kache: {said[1:]}", file=sys.stderr)
        return 1
    cause = f"was not ready within {PATIENCE_SECONDS:g} s and was ended" if late else "ended before it was ready"
    print(f"kache: {said[1:] or f'The cluster {cause}.'}", file=sys.stderr)
    lines = before.last_lines()
    if lines:
        print("The end of its log:", *lines, sep="\n  ", file=sys.stderr)
    before.restore(pid)
    return 1


def _supervised(config: Config, supervise: Supervise, writer: int) -> int:
    told = False

    def tell(mark: str, text: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writer, (mark + text).encode())
            os.close(writer)

    def on_ready(text: str, whole: bool) -> None:
        place = os.path.abspath(config.logfile)
        tell("+" if whole else "!", f"{text.replace('Ctrl-C or ', '')} Its pid is {os.getpid()}, its log {place}.")

    try:
        return supervise(config, on_ready)
    except KacheError as error:
        tell("-", str(error))
    except Exception as error:
        logging.getLogger("kache").exception("ended by an error")
        tell("-", f"The cluster ended by an error: {error}.")
    return 1
