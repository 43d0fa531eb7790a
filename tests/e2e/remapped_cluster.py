"""The real command line, supervisor and children; once all serve, the supervisor changes the map of slots.

Run as a program in place of ``kache``. The blocks of slots go to the shards in turn. The cluster says that it is ready
only when every child has acknowledged the new map, so a test that sees it start has seen that.
"""

from __future__ import annotations

import sys

from kache.cluster import supervisor
from kache.slots import SLOT_COUNT, SlotRange

BLOCK = 256


def interleaved(shards: int) -> list[SlotRange]:
    """The map that the cluster changes to."""
    return [(first, first + BLOCK - 1, first // BLOCK % shards) for first in range(0, SLOT_COUNT, BLOCK)]


class Remapping(supervisor.Supervisor):
    """Changes the map before it says that it is ready."""

    _asked = _done = False

    def _announce(self) -> None:
        if self._done:
            super()._announce()
        elif not self._asked and all(child.state == "up" for child in self._children):
            self._asked = True
            self._take_in_slots(interleaved(self.config.shards), self._on_remapped)

    def _on_remapped(self, error: str) -> None:
        if error:
            raise RuntimeError(error)
        self._done = True
        self._announce()


if __name__ == "__main__":
    supervisor.Supervisor = Remapping  # type: ignore[misc]  # what the command line will start
    from kache.cli.main import run as command_line

    sys.exit(command_line())
