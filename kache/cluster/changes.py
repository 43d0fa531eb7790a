"""Changes of the configuration, one after the other: tried by every child, then stored, or taken back everywhere.

    ask ─► wanted ─► all children try it ─┬─ all can ──────► stored; children started meanwhile are told
                                          └─ one cannot ───► the old configuration everywhere; its error

A child that has ended does not hold a change up, since it starts with what is stored; nor does one that hangs, which is
told when it lives again. Bookkeeping without I/O of its own; the supervisor says how children are told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from kache.config.changing import changed
from kache.config.settings import SETTINGS, Config, ConfigError

__all__ = ["Changes", "Owner"]

Make = Callable[[Config], Config]
Answer = Callable[[str], None]

_log = logging.getLogger("kache")


class Owner(Protocol):
    """Who has the configuration and the children."""

    config: Config

    def try_out(self, wanted: Config, accept: Answer, refuse: Answer) -> None:
        """Have every child apply `wanted`; one of the two is called once, with what went wrong."""

    def take_back(self) -> None:
        """Have every child apply `config` again."""

    def store(self, wanted: Config) -> None:
        """Make `wanted` the configuration of all that are started from now on, or were meanwhile."""


class Changes:
    """Each change is made of the configuration that the one before it has left."""

    def __init__(self, owner: Owner, after: Callable[[Config, Config, Answer], None] | None = None) -> None:
        self._owner = owner
        self._after = after
        """Called with the configuration before and the one that was stored; it calls the answer."""
        self._waiting: deque[tuple[Make, Answer]] = deque()
        self._trying = False

    def ask(self, make: Make, answer: Answer) -> None:
        """Change the configuration as `make` says, which may raise ConfigError; `answer` gets "" or what went wrong."""
        self._waiting.append((make, answer))
        self._go_on()

    def read_again(self, read: Callable[[], Config], answer: Answer = lambda error: None) -> None:
        """Change to what `read` returns, as far as a running cluster can; the log says what came of it, and `answer` gets
        what went wrong."""
        try:
            fresh = read()
        except ConfigError as error:
            _log.warning("the configuration was not read again: %s", error)
            answer(str(error))
            return
        now = self._owner.config
        fixed = [n for n, s in SETTINGS.items() if not s.live and fresh.setting(n) != now.setting(n)]
        needs = [name for name in fixed if name != "port" or fresh.port]
        also = f"; a restart is needed for {', '.join(needs)}" if needs else ""
        live = {name: s.show(fresh.setting(name)) for name, s in SETTINGS.items() if s.live}

        def told(error: str) -> None:
            if error:
                _log.warning("the configuration was read again: %s", error)
            else:
                _log.info("configuration read again%s", also)
            answer(error)

        self.ask(lambda config: changed(config, live), told)

    def _go_on(self) -> None:
        while self._waiting and not self._trying:
            make, answer = self._waiting.popleft()
            try:
                wanted = make(self._owner.config)
            except ConfigError as error:
                answer(str(error))
                continue
            self._trying = True
            self._try(wanted, answer)

    def _try(self, wanted: Config, answer: Answer) -> None:
        def accept(late: str) -> None:
            before = self._owner.config
            self._owner.store(wanted)
            if self._after is None:
                end(late)
            else:
                self._after(before, wanted, lambda error: end(late or error))

        def refuse(cause: str) -> None:
            self._owner.take_back()
            end(f"nothing was changed: {cause}")

        def end(text: str) -> None:
            self._trying = False
            answer(text)
            self._go_on()

        self._owner.try_out(wanted, accept, refuse)
