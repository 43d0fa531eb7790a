"""``kache bench``: the options of a load, its progress bar, and what came of it."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click
import msgspec

from kache.cli.exits import EXIT_ERROR, EXIT_NO_CLUSTER, Failure
from kache.load.generator import run, summary
from kache.load.spec import LoadError, LoadSpec, UnreachableError, check

__all__ = ["bench"]


class _Bar:
    """One progress bar for each phase."""

    def __init__(self) -> None:
        self._phase = ""
        self._bar: Any = None
        self._lock = threading.Lock()

    def __call__(self, phase: str, done: float, requests: int) -> None:
        with self._lock:
            if phase != self._phase:
                self.close()
                self._phase = phase
                self._bar = click.progressbar(
                    length=1000,
                    label=f"{phase:<8}",
                    file=sys.stderr,
                    show_eta=False,
                    item_show_func=lambda item: "" if item is None else f"{item:,} replies",
                )
                self._bar.__enter__()
            self._bar.update(round(done * 1000) - self._bar.pos, requests)

    def close(self) -> None:
        """Ends the line of the last bar."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@click.command()
@click.option(
    "--host", envvar="KACHE_HOST", metavar="ADDRESS", default="127.0.0.1", show_default=True,
    help="Address of the server, or KACHE_HOST.",
)  # fmt: skip
@click.option(
    "-p", "--port", envvar="KACHE_PORT", type=click.IntRange(1, 65535), metavar="PORT", default=7379, show_default=True,
    help="TCP port, or KACHE_PORT.",
)  # fmt: skip
@click.option(
    "--protocol", type=click.Choice(["resp", "binary"]), help="Protocol.  [default: resp; binary for original]"
)
@click.option(
    "--password",
    envvar=["KACHE_PASSWORD", "KACHE_REQUIREPASS"],
    metavar="PASSWORD",
    help="Password, if one is set; better in KACHE_PASSWORD.",
)
@click.option("--username", metavar="NAME", help="User to authenticate as, if not the default one.")
@click.option("--db", metavar="NUMBER", default=0, show_default=True, help="Numbered database.")
@click.option(
    "-t",
    "--commands",
    default="mix",
    show_default=True,
    metavar="NAMES",
    help="What to send: get, set, incr, mget, mset, del, expire, zadd, zrange, zquery, hset or lpush; several with weights "
    "(get:9,set:1); mix (get and set by --reads); original (six commands of the original Kache).",
)
@click.option("--reads", metavar="SHARE", default=0.9, show_default=True, help="Share of GET in mix, 0 to 1.")
@click.option(
    "-c", "--connections", metavar="NUMBER", default=50, show_default=True, help="Connections, all open at once."
)
@click.option(
    "-P", "--pipeline", metavar="NUMBER", default=1, show_default=True, help="Requests in flight on each connection."
)
@click.option("-d", "--value-size", metavar="BYTES", default=32, show_default=True, help="Size of a value.")
@click.option("-r", "--keys", metavar="NUMBER", default=100_000, show_default=True, help="Different keys.")
@click.option("--members", metavar="NUMBER", default=100, show_default=True, help="Members of a sorted set or hash.")
@click.option("--batch", metavar="NUMBER", default=10, show_default=True, help="Keys of an MGET or MSET.")
@click.option(
    "--distribution",
    metavar="NAME",
    default="uniform",
    show_default=True,
    help="How keys are drawn: uniform, or zipf:EXPONENT.",
)
@click.option("--seed", metavar="NUMBER", default=1, show_default=True, help="Seed of the random keys.")
@click.option("--warmup", metavar="SECONDS", default=1.0, show_default=True, help="How long to load before measuring.")
@click.option("-s", "--seconds", metavar="SECONDS", default=5.0, show_default=True, help="How long to measure.")
@click.option("-n", "--requests", type=int, metavar="NUMBER", help="Measure this many requests instead.")
@click.option(
    "--rate", type=float, metavar="NUMBER", help="Offer this many requests per second instead of as many as possible."
)
@click.option("--preload/--no-preload", default=None, help="Store every key first. [default: when commands read]")
@click.option("--processes", metavar="NUMBER", default=1, show_default=True, help="Processes of the generator.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    default=10.0,
    show_default=True,
    help="Give up after so long without any reply.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def bench(ctx: click.Context, /, protocol: str | None, as_json: bool, commands: str, **settings: Any) -> None:
    """Put load on a cluster, or on any server that speaks RESP, and say what it did.

    Latencies come from an HDR histogram. With --rate they count from when a request was due, so a stall of the server
    shows in them. Replies are checked: errors, misses, wrong types and wrong values are counted. Exit status 1 when
    there were any besides misses. Ctrl-C ends the measurement and shows what was measured by then. The keys it writes begin with kb: and stay when it ends.
    """
    chosen = protocol or ("binary" if commands == "original" else "resp")
    spec = msgspec.convert({**settings, "protocol": chosen, "commands": commands}, LoadSpec)
    try:
        check(spec)
    except LoadError as error:
        raise click.UsageError(str(error), ctx) from None
    bar = _Bar() if sys.stderr.isatty() and not as_json else None
    try:
        result = run(spec, bar)
    except LoadError as error:
        status = EXIT_NO_CLUSTER if isinstance(error, UnreachableError) else EXIT_ERROR
        raise Failure(f"{str(error)[:1].upper()}{str(error)[1:]}.", status) from None
    finally:
        if bar:
            bar.close()
    click.echo(msgspec.json.format(msgspec.json.encode(result)).decode() if as_json else summary(result))
    bad = result.errors + result.unexpected + result.mismatches + result.lost + result.unanswered
    if result.interrupted:
        ctx.exit(130)
    if bad or not result.requests:
        ctx.exit(EXIT_ERROR)
