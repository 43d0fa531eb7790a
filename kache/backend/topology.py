"""What a node says of the slots of its cluster. Pure functions over replies."""

from __future__ import annotations

from typing import Any

from kache.errors import KacheError
from kache.slots import SLOT_COUNT

__all__ = ["Range", "TopologyError", "from_slots", "migrations", "moved_to", "node_at"]

Node = tuple[str, int]
Range = tuple[int, int, Node]
"""(first slot, last slot, (host, port) of their master)."""


class TopologyError(KacheError):
    """A reply that is no list of slots."""


def from_slots(reply: Any, asked: Node) -> list[Range]:
    """The ranges in the reply to CLUSTER SLOTS of the node at `asked`, in their order. Raises TopologyError.

    A host that is empty or null is the address that was asked (a node does not always know its own); "?" says that the
    node does not know it either, and its range is left out.
    """
    if not isinstance(reply, list):
        raise TopologyError(f"no list of slots, but {_shown(reply)}")
    found: list[Range] = []
    for entry in reply:
        try:
            first, last, master = entry[0], entry[1], entry[2]
            host, port = master[0], master[1]
        except (TypeError, IndexError):
            raise TopologyError(f"no range of slots, but {_shown(entry)}") from None
        known = isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < SLOT_COUNT
        if not known or not isinstance(port, int) or not isinstance(host, bytes | None):
            raise TopologyError(f"no range of slots, but {_shown(entry)}")
        if host == b"?":
            continue
        found.append((first, last, node_at((host or b"").decode("utf-8", "replace"), port, asked)))
    return sorted(found)


def node_at(host: str, port: int, asked: Node) -> Node:
    """A node as another one names it: without a host, the host that was asked; without a port, the port."""
    return (host or asked[0], port or asked[1])


def moved_to(text: bytes, asked: Node) -> tuple[int, Node] | None:
    """The slot and the node that ``MOVED 866 host:port``, or ASK, names; None for what is neither."""
    words = text.split()
    if len(words) < 3 or not words[1].isdigit() or int(words[1]) >= SLOT_COUNT:
        return None
    host, colon, port = words[2].decode("utf-8", "replace").rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        return None
    return int(words[1]), node_at("" if host == "?" else host.strip("[]"), int(port), asked)


def migrations(text: bytes) -> tuple[set[int], dict[int, Node]]:
    """The slots that the node which says this (CLUSTER NODES) has, and those of them that are leaving it for which node."""
    own: set[int] = set()
    leaving: dict[int, Node] = {}
    nodes: dict[str, Node] = {}
    mine: list[str] = []
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) < 8:
            raise TopologyError(f"no list of nodes, but {_shown(line)}")
        address = words[1].partition(",")[0].partition("@")[0]
        host, _, port = address.rpartition(":")
        if port.isdigit():
            nodes[words[0]] = (host, int(port))
        if "myself" in words[2].split(","):
            mine = words[8:]
    for word in mine:
        slot, arrow, target = word.strip("[]").partition("->-")
        if word.startswith("["):
            if arrow and slot.isdigit() and target in nodes:
                leaving[int(slot)] = nodes[target]
            continue
        first, _, last = word.partition("-")
        own |= set(range(int(first), int(last or first) + 1))
    return own, leaving


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
