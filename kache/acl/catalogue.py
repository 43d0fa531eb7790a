"""Which rows of the command table a word of a rule stands for.

A name stands for all rows of that name (a variant of the binary protocol and its RESP twin are one command), a container
for all its subcommands. Pure; built once from the command table, and again where commands are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from kache.commands import CONTAINERS, TABLE, Row
from kache.commands.describe import categories

__all__ = ["CATALOGUE", "CATEGORIES", "Catalogue"]

CATEGORIES: Final = tuple(
    b"keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow blocking "
    b"dangerous connection transaction scripting".split()
)
"""In the order of ACL CAT."""


class Catalogue:
    """The commands that rules can name."""

    def __init__(self, table: Iterable[Row]) -> None:
        self._table = [row for row in table if "internal" not in row.flags]
        self.take_modules(())

    def take_modules(self, rows: Iterable[Row]) -> None:
        """The commands beside the table are these from here on. Rights compiled before do not know them."""
        known = [*self._table, *rows]
        self.has_modules = len(known) > len(self._table)
        self.everything = frozenset(row.id for row in known)
        self._of_name: dict[bytes, set[int]] = {name.encode(): set() for name in CONTAINERS}
        self._of_category: dict[bytes, set[int]] = {name: set() for name in CATEGORIES}
        self._names: dict[bytes, list[bytes]] = {name: [] for name in CATEGORIES}
        self.containers = {name.encode() for name in CONTAINERS} | {r.name.encode() for r in known if r.subcommands}
        twins = {row.name: row for row in known if row.dialect != "binary"}
        for row in known:
            self._add(row, categories(twins.get(row.name, row)))

    def take_packed(self, rows: Iterable[tuple[bytes, int]]) -> None:
        """The same for rows as they travel, each with the number that its command has in this cluster."""
        read = ((msgspec.msgpack.decode(packed, type=Row), number) for packed, number in rows)
        self.take_modules([msgspec.structs.replace(row, id=number) for row, number in read])

    def _add(self, row: Row, words: Iterable[str]) -> None:
        name = row.name.encode()
        self._of_name.setdefault(name, set()).add(row.id)
        if row.words == 2:
            self._of_name[name.partition(b"|")[0]].add(row.id)
        for word in words:
            category = word[1:].encode()
            if category not in self._of_category:
                continue  # a module's own
            self._of_category[category].add(row.id)
            if name not in self._names[category]:
                self._names[category].append(name)

    def of_name(self, name: bytes) -> frozenset[int] | None:
        """The rows of a command or subcommand (``config``, ``config|get``), in any case; None: there is none."""
        found = self._of_name.get(name.lower())
        return None if found is None else frozenset(found)

    def of_category(self, name: bytes) -> frozenset[int] | None:
        """The rows of a category, without its "@"; None: there is none. ``all`` is one."""
        if name.lower() == b"all":
            return self.everything
        found = self._of_category.get(name.lower())
        return None if found is None else frozenset(found)

    def names_in(self, category: bytes) -> list[bytes] | None:
        """The names of the commands of a category, in the order of the table; None: there is no such category."""
        return self._names.get(category.lower())


CATALOGUE: Final = Catalogue(TABLE)
