"""``kache cluster check --backend``: whether routers can stand in front of a Redis Cluster, and what its clients would notice."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from kache.backend.address import AddressError, nodes_of
from kache.cli.exits import EXIT_ERROR, EXIT_USAGE, Failure

if TYPE_CHECKING:
    # Not for everybody who says `kache cluster`: the table of commands takes as long to load as all the rest.
    from kache.backend.inspection import Report
    from kache.commands import Row

__all__ = ["check"]


@click.command("check", short_help="Look at a Redis Cluster before Kache stands in front of it.")
@click.option(
    "--backend", "url", envvar="KACHE_BACKEND", required=True, metavar="URL",
    help="redis-cluster://host:port,… (rediss-cluster:// by TLS), or KACHE_BACKEND. The password is read from KACHE_BACKEND_PASSWORD.",
)  # fmt: skip
@click.option(
    "--backend-user", "user", envvar="KACHE_BACKEND_USER", default="", metavar="USER", help="User of the nodes."
)
@click.option(
    "--backend-tls-ca-file",
    "ca",
    envvar="KACHE_BACKEND_TLS_CA_FILE",
    default="",
    metavar="FILE",
    help="CA of the nodes, for rediss-cluster://.",
)
@click.option(
    "--backend-tls-cert-file",
    "cert",
    envvar="KACHE_BACKEND_TLS_CERT_FILE",
    default="",
    metavar="FILE",
    help="Certificate to show to the nodes.",
)
@click.option(
    "--backend-tls-key-file", "key", envvar="KACHE_BACKEND_TLS_KEY_FILE", default="", metavar="FILE", help="Its key."
)
@click.option(
    "--backend-tls-verify",
    "verify",
    envvar="KACHE_BACKEND_TLS_VERIFY",
    default="name",
    type=click.Choice(["name", "ca"]),
    help="Whether the nodes' certificates must have their names.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(url: str, user: str, ca: str, cert: str, key: str, verify: str, as_json: bool) -> int:
    """Ask every master of a Redis or Valkey Cluster, changing nothing, whether Kache can stand in front of it.

    Of the commands that its nodes have executed so far it lists those whose clients would notice a difference.

    Exit status: 0 nothing stands in the way, 1 something does.
    """
    from kache.backend.conversation import NodeError
    from kache.backend.inspection import inspect
    from kache.backend.tls import context_for

    try:
        tls = context_for(url, ca, cert, key, verify=verify)
        report = inspect(nodes_of(url), user, os.environ.get("KACHE_BACKEND_PASSWORD", ""), tls)
    except AddressError as error:
        raise Failure(f"--backend {error}.", EXIT_USAGE) from None
    except NodeError as error:
        raise Failure(f"{error}.") from None
    found = _differences(report)
    if as_json:
        told = [{"command": row.name, "calls": calls, "how": how, "text": text} for row, how, calls, text in found]
        click.echo(json.dumps(msgspec.to_builtins(report) | {"differences": told}))
    else:
        _show(report, found)
    return EXIT_ERROR if report.troubles else 0


class Difference(NamedTuple):
    """Of a command that was called: how it differs, and the sentence that says so."""

    row: Row
    how: str
    calls: int
    text: str


def _differences(report: Report) -> list[Difference]:
    """The rows whose commands were called and are not simply what they are on the nodes, the most frequent first."""
    from kache.commands.behind import differences

    calls = report.calls()
    found = [Difference(row, how, calls[row.name], text) for row, how, text in differences() if calls.get(row.name)]
    return sorted(found, key=lambda each: -each.calls)


def _show(report: Report, found: list[Difference]) -> None:
    from kache.cli.stats import text_table

    lines = [
        [one.node, one.server or "-", str(one.slots), str(one.keys) if not one.error else "-", one.state or one.error]
        for one in report.nodes
    ]
    click.echo(text_table(["master", "server", "slots", "keys", "state"], lines))
    for trouble in report.troubles:
        click.echo(trouble)
    if found:
        click.echo("Commands of its clients that are not quite the same through Kache:")
        shown = [[row.name.replace("|", " "), str(calls), how] for row, how, calls, _ in found]
        table = text_table(["command", "calls", "how"], shown).split("\n")
        click.echo(table[0] + "  what differs")
        for line, (_, _, _, text) in zip(table[1:], found, strict=True):
            click.echo(f"{line}  {text}")
    if not report.troubles:
        click.echo("Kache can stand in front of it.")
