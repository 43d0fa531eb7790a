"""A process that tries the file of a module: ``python -m kache.module.probe <descriptor>``. Only the supervisor starts it.

The supervisor must be able to fork at any moment, so it imports nothing that it does not know; and a file that ends its
process, or never comes back, has to do so here. It reads a `Request` from its standard input and writes an `Answer` to the
descriptor; what the file prints goes to the log.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from kache.commands import TABLE

from .rows import rows_of
from .source import ModuleError, execute, module_name

__all__ = ["Answer", "Request"]


class Request(msgspec.Struct, frozen=True):
    """The file to be tried."""

    path: str
    source: str
    seconds: int
    """After so many, and a few more, it ends whoever waits for it."""


class Answer(msgspec.Struct, frozen=True):
    """Its rows, by name, each as msgpack, or why there are none; `built_in`: how many numbers the command table takes."""

    error: str = ""
    rows: dict[str, bytes] = {}
    built_in: int = 0


def answer_to(request: Request) -> Answer:
    """What becomes of the request."""
    try:
        rows = rows_of(execute(module_name(request.path), request.path, request.source))
    except ModuleError as error:
        return Answer(str(error))
    return Answer("", {name: msgspec.msgpack.encode(row) for name, (row, _) in rows.items()}, len(TABLE))


def _main() -> None:
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    signal.alarm(request.seconds + 5)
    with open(fd, "wb") as out:
        out.write(msgspec.msgpack.encode(answer_to(request)))
        out.flush()
    sys.stdout.flush()
    os._exit(0)  # whatever the file has left running


if __name__ == "__main__":
    _main()
