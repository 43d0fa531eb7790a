"""Which function carries out which command of the table; filled by the modules of handlers at import.

    @command("getrange")
    def getrange(ctx: Context, key: bytes, start: bytes, end: bytes) -> Reply: ...

A handler gets its context and the arguments as sent, without the command's name (or its subcommand's); their
number fits the row's arity. `load` imports every module of handlers and compares both sides: a row without its
handler, or a handler without its row, fails there and not at a request. Called by the execution point.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from kache.commands import BY_KEY, TABLE
from kache.errors import KacheError

__all__ = ["INNER", "Handler", "RegistryError", "command", "handler_of", "inner", "load"]

Handler = Callable[..., Any]
_H = TypeVar("_H", bound=Handler)

_HANDLERS: dict[str, Handler] = {}
INNER: dict[int, Handler] = {}
"""By command id: what answers, inside of programs, commands that routers answer to clients."""
_loaded: list[Handler | None] = []


class RegistryError(KacheError):
    """The table of commands and the handlers do not match."""


def command(name: str) -> Callable[[_H], _H]:
    """Registers a handler under the key of its row (``get``, ``object|encoding``, ``binary|del``)."""

    def register(handler: _H) -> _H:
        row = BY_KEY.get(name)
        if row is None or not row.on_shard:
            raise RegistryError(f"{handler.__module__}: no row of the command table has the handler {name!r}")
        if name in _HANDLERS:
            raise RegistryError(f"{handler.__module__}: {name!r} has a handler already")
        _HANDLERS[name] = handler
        return handler

    return register


def inner(name: str) -> Callable[[_H], _H]:
    """Registers what a program is answered, under the key of a row that no shard executes for clients."""

    def register(handler: _H) -> _H:
        row = BY_KEY.get(name)
        if row is None or row.on_shard:
            raise RegistryError(f"{handler.__module__}: no row that routers answer has the handler {name!r}")
        INNER[row.id] = handler
        return handler

    return register


def handler_of(name: str) -> Handler:
    """The handler of a row by its key; KeyError when a shard has none."""
    return _HANDLERS[name]


def load() -> list[Handler | None]:
    """Imports every module of the package and returns the handlers by command id (None: the router's own).

    Raises RegistryError when a command has no handler. The work is done once: a process forked behind it shares the result.
    """
    if _loaded:
        return _loaded
    package = importlib.import_module(str(__package__))
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    missing = [row.key for row in TABLE if row.on_shard and row.key not in _HANDLERS]
    if missing:
        raise RegistryError(f"commands without a handler: {', '.join(missing)}")
    _loaded.extend(_HANDLERS.get(row.key) for row in TABLE)
    return _loaded
