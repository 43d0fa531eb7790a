"""The command line's own connection: RESP3, since it keeps the shape of a reply (map, set, double) for showing it.

Blocking, one command at a time. Programs use `kache.Client`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from kache.cli.main import EXIT_NO_CLUSTER, Failure
from kache.errors import CommandError

__all__ = ["TIMEOUT", "Connection", "address_options"]

F = TypeVar("F", bound=Callable[..., Any])


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """Seconds that a socket can wait: 0 would not wait at all, and far more than this some systems cannot count."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 1_000_000:  # false for nan, too
            self.fail(f"must be a number of seconds above 0 and up to 1000000, not '{value}'", param, ctx)
        return seconds


TIMEOUT = _Seconds()


def address_options(function: F) -> F:
    """The options that say which cluster: --host, --port, --password, --db, --timeout.

    They arrive under these names, to be passed on to `Connection`.
    """
    options = (
        click.option("--host", envvar="KACHE_HOST", default="127.0.0.1", show_default=True, help="Address."),
        click.option(
            "--port", "-p", envvar="KACHE_PORT", type=click.IntRange(1, 65535), metavar="PORT", default=7379,
            show_default=True, help="TCP port.",
        ),
        click.option("--password", envvar=["KACHE_PASSWORD", "KACHE_REQUIREPASS"], help="Password, if one is set."),
        click.option(
            "--db", "-n", type=click.IntRange(0, 15), metavar="NUMBER", default=0, show_default=True, help="Database.",
        ),
        click.option(
            "--timeout", type=TIMEOUT, metavar="SECONDS", default=10.0, show_default=True,
            help="Seconds to wait for a reply.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


class Connection:
    """One connection in RESP3. `request` returns Python values, an error reply raises CommandError.

    Raises Failure when there is no cluster or it went away.
    """

    def __init__(self, host: str, port: int, password: str | None, db: int, timeout: float) -> None:
        from kache._wire import ReplyTooShort, decode_reply

        self._too_short = ReplyTooShort
        self._decode = decode_reply
        self._where = f"{host}:{port}"
        self._buffer = bytearray()
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Failure(f"No cluster answers at {self._where}: {reason}.", EXIT_NO_CLUSTER) from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        greeting = ["hello", "3"]
        if password:
            greeting += ["auth", "default", password]
        self.needs_password = False
        try:
            self.request(greeting)
        except CommandError as error:
            if error.code != "NOAUTH":
                raise
            self.needs_password = True
        if db:
            self.request(["select", str(db)])

    def request(self, words: Sequence[str | bytes]) -> Any:
        """Send one command and return its reply."""
        parts = [word if isinstance(word, bytes) else word.encode("utf-8", "surrogateescape") for word in words]
        message = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        try:
            self._socket.sendall(message)
        except TimeoutError:
            raise Failure(f"{self._where} did not take the command in time.") from None
        except OSError:
            pass  # closed by the server: its last words may still be readable
        reply = self.read()
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def read(self) -> Any:
        """The next reply; an error reply is returned."""
        while True:
            try:
                value, end = self._decode(bytes(self._buffer))
            except self._too_short:
                self._receive()
                continue
            except ValueError:
                raise Failure(f"{self._where} does not speak RESP.") from None
            del self._buffer[:end]
            return value

    def _receive(self) -> None:
        # A large reply is decoded again from its start: read what is there, and more each time.
        wanted = max(65536, len(self._buffer))
        try:
            while wanted > 0:
                data = self._socket.recv(min(wanted, 1 << 20))
                if not data:
                    raise Failure(f"{self._where} closed the connection.", EXIT_NO_CLUSTER)
                self._buffer += data
                wanted -= len(data)
                if len(data) < 65536 and self._buffer.endswith(b"\r\n"):
                    return
        except TimeoutError:
            raise Failure(f"{self._where} did not answer in time.") from None
        except OSError as error:
            raise Failure(f"{self._where} is gone: {error.strerror}.", EXIT_NO_CLUSTER) from None

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
