"""``kache subscribe`` and ``kache monitor``: what is published, and what clients do, as it happens."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from kache.cli import show
from kache.cli.connection import Address, Connection, address_options
from kache.cli.exits import EXIT_NO_CLUSTER, EXIT_STATUS, PASSWORD_HINT, Failure
from kache.errors import CommandError

__all__ = ["monitor", "subscribe"]


@click.command("subscribe", epilog=EXIT_STATUS)
@click.argument("channels", nargs=-1, required=True)
@click.option("--pattern", "-P", is_flag=True, help="CHANNELS are patterns such as 'news.*'.")
@click.option("--shard", is_flag=True, help="CHANNELS are shard channels (SPUBLISH).")
@click.option("--json", "as_json", is_flag=True, help='One JSON object a line; what is not UTF-8 is {"base64": ...}.')
@click.option("--count", "-c", type=click.IntRange(1), metavar="N", help="Stop after so many messages.")
@address_options
def subscribe(
    channels: tuple[str, ...],
    pattern: bool,
    shard: bool,
    as_json: bool,
    count: int | None,
    address: Address,
) -> None:
    """Show what is published on CHANNELS until Ctrl-C: `channel: message`, a line each.

    A connection that is lost is made again; a line on the error output says that messages may be missing.
    """
    from kache.client.blocking import Client
    from kache.client.errors import ConnectError

    if pattern and shard:
        raise click.UsageError("Shard channels have no patterns: --pattern or --shard.")
    names = [channel.encode("utf-8", "surrogateescape") for channel in channels]
    client: Client[bytes] = Client(
        address.host,
        address.port or 1,
        unixsocket=address.unixsocket,
        username=address.user,
        password=address.password or ("" if address.user else None),
        db=address.db,
        timeout=address.timeout,
        tls=address.tls[0] if address.tls else False,
        server_hostname=address.tls[1] if address.tls else None,
    )
    with client, client.pubsub() as listening:
        listen = listening.psubscribe if pattern else listening.ssubscribe if shard else listening.subscribe
        try:
            listen(*names)
        except ConnectError as error:
            reason = str(error).partition(f"{address.where}: ")[2] or str(error)
            raise Failure(f"No cluster answers at {address.where}: {reason}", EXIT_NO_CLUSTER) from None
        click.echo(f"listening to {', '.join(channels)}", err=True)
        shown = 0
        for message in listening:
            if message.gap:
                click.echo("kache: the connection was lost and is back; messages in between are missing", err=True)
                continue
            _show(message.channel, message.data, message.pattern, as_json)
            shown += 1
            if shown == count:
                return


def _show(channel: bytes, data: bytes, pattern: bytes | None, as_json: bool) -> None:
    if as_json:
        fields = {"channel": show.bytes_as_json(channel), "data": show.bytes_as_json(data)}
        if pattern is not None:
            fields["pattern"] = show.bytes_as_json(pattern)
        click.echo(json.dumps(fields, ensure_ascii=False))
    else:
        sys.stdout.buffer.write(channel + b": " + data + b"\n")
    sys.stdout.flush()


@click.command("monitor", epilog=EXIT_STATUS)
@address_options
def monitor(address: Address) -> None:
    """Show every command that clients send, until Ctrl-C: time, database, address, words. It slows the cluster down."""
    connection = Connection(address)
    try:
        if connection.needs_password:
            raise Failure(f"The cluster wants a password. {PASSWORD_HINT}")
        connection.request(["monitor"])
        connection.wait_for_ever()
        while True:
            line: Any = connection.read()
            if isinstance(line, CommandError):
                raise line
            click.echo(line)
            sys.stdout.flush()
    finally:
        connection.close()
