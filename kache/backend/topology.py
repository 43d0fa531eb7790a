"""What a node says of the slots of its cluster. Pure functions over replies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kache.errors import KacheError
from kache.slots import SLOT_COUNT

__all__ = ["Range", "Shown", "TopologyError", "from_slots", "migrations", "moved_to", "node_at", "view_of"]

Node = tuple[str, int]
Range = tuple[int, int, Node]
"""(first slot, last slot, (host, port) of their master)."""


class Shown(NamedTuple):
    """A range of slots as one node sees it."""

    first: int
    last: int
    master: Node
    replicas: tuple[Node, ...]
    epoch: int
    """The config epoch of the master: of two views of a slot, the higher one is the newer. 0: not known."""


class TopologyError(KacheError):
    """A reply that is no list of slots."""


def from_slots(reply: Any, asked: Node) -> list[Range]:
    """The ranges in the reply to CLUSTER SLOTS of the node at `asked`, in their order. Raises TopologyError.

    A host that is empty or null is the address that was asked (a node does not always know its own); "?" says that the
    node does not know it either, and its range is left out.
    """
    return sorted((first, last, nodes[0]) for first, last, nodes, _ in _entries(reply, asked))


def view_of(reply: Any, nodes: bytes, asked: Node) -> list[Shown]:
    """The same with replicas, and with epochs from the reply to CLUSTER NODES of the same node; b"": it does not answer that."""
    epochs = _epochs(nodes)
    return sorted(
        Shown(first, last, found[0], tuple(found[1:]), epochs.get(name, 0))
        for first, last, found, name in _entries(reply, asked)
    )


def _entries(reply: Any, asked: Node) -> Iterator[tuple[int, int, list[Node], bytes]]:
    """(first slot, last slot, its master and replicas, the master's id)"""
    if not isinstance(reply, list):
        raise TopologyError(f"no list of slots, but {_shown(reply)}")
    for entry in reply:
        try:
            first, last, master, *replicas = entry
            host, port = master[0], master[1]
        except (TypeError, IndexError, ValueError):
            raise TopologyError(f"no range of slots, but {_shown(entry)}") from None
        known = isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < SLOT_COUNT
        if not known or not isinstance(port, int) or not isinstance(host, bytes | None):
            raise TopologyError(f"no range of slots, but {_shown(entry)}")
        if host == b"?":
            continue
        name = master[2] if len(master) > 2 and isinstance(master[2], bytes) else b""
        yield first, last, [_node(master, asked), *(_node(each, asked) for each in replicas if _is_node(each))], name


def _is_node(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) >= 2
        and isinstance(entry[0], bytes | None)
        and isinstance(entry[1], int)
        and entry[0] != b"?"
    )


def _node(entry: Any, asked: Node) -> Node:
    return node_at((entry[0] or b"").decode("utf-8", "replace"), entry[1], asked)


def _epochs(nodes: bytes) -> dict[bytes, int]:
    """The config epoch of every master by its id."""
    found = {}
    for line in nodes.splitlines():
        words = line.split()
        if len(words) >= 8 and b"master" in words[2].split(b",") and words[6].isdigit():
            found[words[0]] = int(words[6])
    return found


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
