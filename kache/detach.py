"""Running a cluster in the background: the command returns when the cluster answers, or with why it does not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection

import msgspec

from kache import processes
from kache.config import Config
from kache.errors import KacheError

__all__ = ["detached"]


def detached(
    config: Config, supervise: Callable[[Config, Callable[[str], None]], int], keep: Collection[int] = ()
) -> int:
    """Run `supervise` in a process of its own session; returns the exit status of the command that started it.

    The background process logs to `config.logfile`, or to ``kache-<port>.log`` in its directory. `keep` are
    descriptors that it must not lose.
    """
    config = msgspec.structs.replace(config, logfile=config.logfile or f"kache-{config.port}.log")
    try:
        log = os.open(config.logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        print(f"kache: The log file {config.logfile} cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.waitpid(pid, 0)
        return _wait(reader)
    status = 1
    try:
        os.setsid()
        if os.fork():  # the session's leader ends, so that no terminal can ever become ours
            os._exit(0)
        null = os.open(os.devnull, os.O_RDONLY)
        for ours, place in ((null, 0), (log, 1), (log, 2)):
            os.dup2(ours, place)
        processes.close_all_but({0, 1, 2, writer, *keep})
        status = _supervised(config, supervise, writer)
    finally:
        os._exit(status)


def _wait(reader: int) -> int:
    """Show the first words of the background process: its ready line, or why it could not start."""
    with os.fdopen(reader, encoding="utf-8") as file:
        said = file.read()
    if said.startswith("+"):
        print(said[1:])
        return 0
    print(f"kache: {said[1:] or 'The cluster ended before it was ready; its log has the reason.'}", file=sys.stderr)
    return 1


def _supervised(config: Config, supervise: Callable[[Config, Callable[[str], None]], int], writer: int) -> int:
    told = False

    def tell(mark: str, text: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writer, (mark + text).encode())
            os.close(writer)

    def on_ready(text: str) -> None:
        place = os.path.abspath(config.logfile)
        tell("+", f"{text.replace('Ctrl-C or ', '')} Its pid is {os.getpid()}, its log {place}.")

    try:
        return supervise(config, on_ready)
    except KacheError as error:
        tell("-", str(error))
        return 1
