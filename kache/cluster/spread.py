"""The effective configuration on its way to the children: what each is sent, and who has yet to say that it goes by it.

`Changes` decides what becomes of a change and asks for it here (`kache.cluster.changes.Owner`). A child that is started
later has the configuration from its start, and what else is told to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kache.cluster import logs, messages
from kache.cluster.acknowledgements import ACK_SECONDS, Acknowledgements
from kache.cluster.children import Child
from kache.cluster.durability import DataDirectory
from kache.config.settings import Config
from kache.errors import KacheError

__all__ = ["LOG_SECONDS", "Spread"]

LOG_SECONDS = 3600.0
"""How long the shards may take to write everything they hold, before a change that needs it counts as late."""


class Spread:
    """`config` is what children that are started now get; `send` sends a child a message."""

    def __init__(
        self,
        config: Config,
        data: DataDirectory,
        children: Sequence[Child],
        acknowledgements: Acknowledgements,
        send: Callable[[Child, messages.Down], None],
    ) -> None:
        self.config = config
        self._data = data
        self._children = children
        self._acknowledgements = acknowledgements
        self._send = send
        self._tried: dict[str, int] = {}
        """Who was told the change under way, and in which of its lives."""

    def open_data(self) -> None:
        """The directory is ours from here on, and shards know it; KacheError says why not."""
        if not self._data.is_open:
            self._data.open()
            for child in self._children:
                if child.role == "shard":
                    self._send(child, self.message(child, 0, self.config))

    def try_out(self, wanted: Config, accept: Callable[[str], None], refuse: Callable[[str], None]) -> None:
        """Have every child that lives apply `wanted`."""
        number = self._acknowledgements.next_id()
        asked = [child for child in self._children if child.conversation is not None and not child.unresponsive]
        self._tried = {child.name: child.restarts for child in asked}
        if wanted.appendonly or wanted.save:
            try:
                self.open_data()
            except KacheError as error:
                refuse(str(error))
                return
        for child in asked:
            self._send(child, self.message(child, number, wanted))
        now = time.monotonic()
        # Once the log is on, a restart finds everything: so everything has to be written first.
        seconds = LOG_SECONDS if wanted.appendonly and not self.config.appendonly else ACK_SECONDS
        names = [child.name for child in asked]
        self._acknowledgements.begin(number, names, now, accept, seconds=seconds, refuse=refuse)

    def take_back(self) -> None:
        """Have those who were asked to try go on with what they had."""
        number = self._acknowledgements.next_id()
        for child in self._children:
            if self._tried.get(child.name) == child.restarts:
                self._send(child, self.message(child, number, self.config))

    def store(self, wanted: Config) -> None:
        """Make `wanted` the configuration, of those too that were started since it was tried."""
        self.config = wanted
        logs.set_level(wanted)
        number = self._acknowledgements.next_id()
        for child in self._children:
            if self._tried.get(child.name) != child.restarts and not child.unresponsive:
                self._send(child, self.message(child, number, wanted))

    def message(self, child: Child, number: int, config: Config) -> messages.ConfigChanged:
        """What tells a child to go by `config`; with number 0 nobody waits for its word."""
        data = self._data.of_shard(child.index) if child.role == "shard" else None
        return messages.ConfigChanged(number, config, data)

    def tell_all(self, message: Callable[[int], messages.Down], answer: Callable[[str], None]) -> None:
        """Send every child the message of a number, and call `answer` once all have acknowledged it, with who is late."""
        number = self._acknowledgements.next_id()
        reached = [child for child in self._children if child.conversation is not None]
        for child in reached:
            self._send(child, message(number))
        self._acknowledgements.begin(number, [child.name for child in reached], time.monotonic(), answer)
