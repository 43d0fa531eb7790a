"""What the constructors of both clients are given, checked before anything uses it.

Pure. TypeError for a value of the wrong kind, ValueError for one out of range; both name the argument and say what it
must be, but never show a password.
"""

from __future__ import annotations

__all__ = ["TIMEOUT_SECONDS", "check_options", "check_seconds"]

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
