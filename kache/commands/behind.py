"""What differs where the routers stand in front of a Redis Cluster: from the column `cluster` of the table.

For `docs/past-one-machine.md`, whose last section is what ``python -m kache.commands.behind`` prints, for `kache cluster
check`, and for the router, which refuses in these words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import TABLE, Row

__all__ = ["differences", "markdown", "told"]

_WORDS: Final = {"one_slot": "All keys must have the same slot, or CROSSSLOT is the answer."}

_HEAD: Final = "| command | | |\n|---|---|---|\n"


def told(row: Row) -> tuple[str, str]:
    """How a row's command is different there (the column's word) and a sentence; two empty ones if it is not."""
    if row.cluster in ("refused", "differs", "one_slot"):
        return row.cluster, row.cluster_text or _WORDS[row.cluster]
    return "", ""


def differences() -> Iterator[tuple[Row, str, str]]:
    """Every command of RESP that is not simply what it is elsewhere: (row, how, sentence)."""
    for row in TABLE:
        if "internal" not in row.flags and row.dialect != "binary" and told(row)[0]:
            yield (row, *told(row))


def markdown() -> str:
    """The table of them, those with the same words in one line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row, how, text in differences():
        lines.setdefault((how, text), []).append(f"`{row.name.replace('|', ' ').upper()}`")
    order = ("refused", "one_slot", "differs")
    shown = sorted(lines.items(), key=lambda item: order.index(item[0][0]))
    words = {"one_slot": "one slot"}
    return _HEAD + "".join(f"| {' '.join(names)} | {words.get(how, how)} | {text} |\n" for (how, text), names in shown)


if __name__ == "__main__":
    print(markdown(), end="")
