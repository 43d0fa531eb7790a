"""What the nodes of a Redis Cluster say of themselves, and what of it stands in Kache's way: for `kache cluster check`.

It only reads (CLUSTER SLOTS, CLUSTER INFO, CLUSTER NODES, INFO), one node after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from kache.backend.address import Node, format_node
from kache.backend.conversation import Conversation, NodeError, first_answer
from kache.backend.topology import Range, from_slots, migrations
from kache.errors import CommandError
from kache.slots import SLOT_COUNT

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["NodeReport", "Report", "inspect"]


class NodeReport(msgspec.Struct, kw_only=True):
    """One master. `slots` are how many it has by the map of the node that was asked first."""

    node: str
    slots: int
    server: str = ""
    state: str = ""
    keys: int = 0
    calls: dict[str, int] = {}
    """Commands that it has executed, by name ("config|get"), as it counts them."""
    error: str = ""


class Report(msgspec.Struct, kw_only=True):
    """The cluster; `troubles` are sentences, none when routers can stand in front of it."""

    asked: str
    nodes: list[NodeReport]
    troubles: list[str]

    def calls(self) -> dict[str, int]:
        """Of all nodes together."""
        summed: dict[str, int] = {}
        for node in self.nodes:
            for name, count in node.calls.items():
                summed[name] = summed.get(name, 0) + count
        return summed


def inspect(nodes: list[Node], user: str, password: str, tls: SSLContext | None = None) -> Report:
    """Asks every master. Raises NodeError when no node of `nodes` says where the slots are."""
    asked, reply = first_answer(nodes, user, password, "CLUSTER", "SLOTS", tls=tls)
    ranges = from_slots(reply, asked)
    report = Report(asked=format_node(asked), nodes=[], troubles=[])
    for address in dict.fromkeys(address for _, _, address in ranges):
        owned = sum(last - first + 1 for first, last, each in ranges if each == address)
        one = NodeReport(node=format_node(address), slots=owned)
        report.nodes.append(one)
        try:
            with Conversation(address, user, password, tls=tls) as conversation:
                _ask(conversation, one, ranges, report.troubles)
        except (NodeError, CommandError) as error:
            one.error = str(error)
            report.troubles.append(f"{one.node} has {owned} slots and does not answer: {error}.")
    missing = SLOT_COUNT - sum(last - first + 1 for first, last, _ in ranges)
    if missing:
        report.troubles.append(f"{missing} slots have no owner: commands on them are answered with CLUSTERDOWN.")
    servers = {one.server for one in report.nodes if one.server}
    if len(servers) > 1:
        report.troubles.append(f"The nodes run different versions: {', '.join(sorted(servers))}.")
    return report


def _ask(conversation: Conversation, one: NodeReport, ranges: list[Range], troubles: list[str]) -> None:
    server = _fields(conversation.ask("INFO", "server"))
    name = "valkey" if "valkey_version" in server else "redis"
    one.server = f"{name} {server.get('valkey_version') or server.get('redis_version', '')}".strip()
    one.state = _fields(conversation.ask("CLUSTER", "INFO")).get("cluster_state", "")
    if one.state != "ok":
        troubles.append(f"{one.node} says that the cluster is {one.state or 'in no state'}.")
    one.keys = int(conversation.ask("DBSIZE"))
    if from_slots(conversation.ask("CLUSTER", "SLOTS"), conversation.node) != ranges:
        troubles.append(f"{one.node} has another map of the slots than the node that was asked first.")
    _, leaving = migrations(bytes(conversation.ask("CLUSTER", "NODES")))
    if leaving:
        troubles.append(f"{len(leaving)} slots are leaving {one.node}: they are served, one command at a time.")
    one.calls = _calls(conversation.ask("INFO", "commandstats"))


def _fields(text: Any) -> dict[str, str]:
    lines = bytes(text).decode("utf-8", "replace").split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _calls(text: Any) -> dict[str, int]:
    """``cmdstat_config|get:calls=3,usec=…``"""
    found = {}
    for name, value in _fields(text).items():
        count = value.partition("calls=")[2].partition(",")[0]
        if name.startswith("cmdstat_") and count.isdigit():
            found[name.removeprefix("cmdstat_")] = int(count)
    return found
