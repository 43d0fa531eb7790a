"""What the constructors of both clients are given, checked before anything uses it.

Pure. TypeError for a value of the wrong kind, ValueError for one out of range; both name the argument and say what it
must be, but never show a password.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from kache.config.kinds import format_address

__all__ = ["TIMEOUT_SECONDS", "address_text", "check_options", "check_seconds", "url_options"]

TIMEOUT_SECONDS = 10.0
"""How long a client waits unless it is told otherwise: twice the server's `request-timeout-ms`, so that a client sees
the server's own answer about a command that was not begun in time, and loses its connection only where none comes."""

MOST_SECONDS = 1_000_000
"""Far more than this some systems cannot wait for."""


def check_options(
    host: object,
    port: object,
    password: object,
    username: object,
    db: object,
    decode: object,
    timeout: object,
    connect_timeout: object,
    max_connections: object,
    unixsocket: object,
) -> None:
    """Raises TypeError or ValueError for the first argument that cannot be meant."""
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {host!r}")
    if not host:
        raise ValueError("host must be a name or an address, not empty")
    _check_int("port", port, 1, 65535)
    for name, text in (("password", password), ("username", username)):
        if not isinstance(text, str | None):
            raise TypeError(f"{name} must be a str or None, not of type {type(text).__name__}")
    _check_int("db", db, 0, 15)
    if not isinstance(decode, bool):
        raise TypeError(f"decode must be True or False, not {decode!r}")
    _check_seconds("timeout", timeout)
    _check_seconds("connect_timeout", connect_timeout)
    _check_int("max_connections", max_connections, 1, None)
    if not isinstance(unixsocket, str | None):
        raise TypeError(f"unixsocket must be the path of a socket or None, not {unixsocket!r}")
    if unixsocket == "":
        raise ValueError("unixsocket must be the path of a socket or None, not empty")


def address_text(address: tuple[str, int] | str) -> str:
    """``127.0.0.1:7379``, or the path of a Unix socket."""
    return address if isinstance(address, str) else format_address(*address)


_IN_A_URL = {"timeout": float, "connect_timeout": float, "max_connections": int, "db": int}
_TLS = ("kaches", "rediss", "valkeys")
_TCP = ("kache", "redis", "valkey")


def url_options(url: str) -> dict[str, Any]:
    """The options of a client that a URL stands for; ValueError, which does not show its password, for what is none.

    ``kache://[[user]:password@]host[:port][/db][?timeout=5&max_connections=8]``, with ``redis://`` for ``kache://`` if that is
    what a setting has, ``kaches://`` or ``rediss://`` with TLS, or ``unix://[[user]:password@]/path/of/socket[?db=1]``.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not of type {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL of a cluster: {error}") from None
    if parts.scheme not in (*_TCP, *_TLS, "unix"):
        raise ValueError(
            f"a URL begins with kache://, redis:// or unix://, not with {parts.scheme + '://' if parts.scheme else url[:12]!r}"
        )
    options: dict[str, Any] = {"tls": True} if parts.scheme in _TLS else {}
    if parts.password is not None:
        options["password"] = unquote(parts.password)
        if parts.username:
            options["username"] = unquote(parts.username)
    elif parts.username:
        raise ValueError("a URL gives a password behind a colon, as in kache://:password@host")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise ValueError("the URL of a Unix socket has three slashes before its path, as in unix:///run/kache.sock")
        options["unixsocket"] = unquote(parts.path)
    else:
        options |= {"host": parts.hostname or "127.0.0.1"} | ({} if port is None else {"port": port})
        if parts.path not in ("", "/"):
            options["db"] = _number("the database", parts.path[1:], int)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _IN_A_URL:
            raise ValueError(f"a URL cannot say {name!r}; it can say {', '.join(_IN_A_URL)}")
        options[name] = _number(name, text, _IN_A_URL[name])
    return options


def _number(name: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} in a URL must be a number, not {text!r}") from None


def check_seconds(name: str, seconds: float | None) -> float | None:
    """`seconds`, if it is a time to wait, or None for as long as it takes; raises TypeError or ValueError."""
    _check_seconds(name, seconds)
    return seconds


def _check_seconds(name: str, seconds: object) -> None:
    wanted = f"{name} must be a number of seconds above 0 and up to {MOST_SECONDS}, or None for no limit"
    if seconds is None:
        return
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{wanted}, not {seconds!r}")
    if not 0 < seconds <= MOST_SECONDS:  # false for nan, too
        raise ValueError(f"{wanted}, not {seconds!r}")


def _check_int(name: str, number: object, low: int, high: int | None) -> None:
    wanted = f"{name} must be an int, at least {low}" if high is None else f"{name} must be an int from {low} to {high}"
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{wanted}, not {number!r}")
    if number < low or (high is not None and number > high):
        raise ValueError(f"{wanted}, not {number}")
