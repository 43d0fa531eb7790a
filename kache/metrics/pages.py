"""Which path of the metrics port is answered how, and who may ask.

    /metrics     Prometheus or OpenMetrics text; open, as scrapers expect it: figures, no keys and no values
    /healthz     200 while the cluster answers a PING
    /readyz      200 while every router and shard is up and executes commands (READY); else 503 and why not
    /, /api/…    the console: behind a password of the cluster, since it shows keys and values

Whoever looks at the console names a user (any other name stands for `default`) and sees what that one may see. Where any
password is right for that user, only this machine reaches the console: other addresses are refused, and so is a Host that is a
name, behind which a page of a stranger could stand.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from kache import __version__
from kache.cluster.messages import ClusterStatus
from kache.cluster.status import unready
from kache.config.settings import Config
from kache.errors import KacheError
from kache.metrics import console
from kache.metrics.exposition import exposed
from kache.metrics.server import Request, Response
from kache.metrics.source import Source, SourceError, Visitor

__all__ = ["Pages"]

READ_METHODS = ("GET", "HEAD")
WRONG_PASSWORD_SECONDS = 1.0
"""Guessing should take its time."""
PROOF = "x-kache-console"
"""A header that the page of a stranger cannot send along."""


def _plain(status: int, words: str, *headers: tuple[str, str]) -> Response:
    return Response(status, "text/plain; charset=utf-8", words.encode() + b"\n", headers)


def _json(value: Any) -> Response:
    return Response(200, "application/json", json.dumps(value).encode())


class Pages:
    """`source` has the figures; `status` asks the supervisor; `config` is replaced when it changes."""

    def __init__(self, config: Config, source: Source, status: Callable[[], Awaitable[ClusterStatus]]) -> None:
        self.config = config
        self._source = source
        self._status = status
        self._open = {"/metrics": self._metrics, "/healthz": self._health, "/readyz": self._readiness}
        self._console = {
            "/": self._page, "/api/now": self._now, "/api/history": self._history, "/api/keys": self._keys, "/api/key": self._key
        }  # fmt: skip
        self._html = resources.files("kache.metrics").joinpath("console.html").read_bytes()
        self._policy = _content_policy(self._html.decode())

    async def answer(self, request: Request) -> Response:
        """The answer to any request."""
        try:
            if request.path in self._console:
                return await self._visited(request)
            if request.path not in self._open:
                return _plain(404, f"There is nothing at {request.path}: ask for {', '.join([*self._open, '/'])}.")
            if request.method not in READ_METHODS:
                return _plain(405, "Only GET is answered here.")
            return await self._open[request.path](request)
        except console.Refused as error:
            return _plain(error.status, str(error))
        except (KacheError, OSError, TimeoutError) as error:
            return _plain(503, str(error))

    async def _visited(self, request: Request) -> Response:
        """A page of the console, or why not."""
        given = "authorization" in request.headers
        name, password = _given(request.headers.get("authorization", ""))
        visitor = await self._source.visitor(name, password)
        if visitor is None:
            if given:
                await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            return _plain(
                401,
                "The console wants the name and the password of a user; any other name stands for default.",
                ("WWW-Authenticate", 'Basic realm="Kache"'),
            )
        if visitor.is_anybody:
            if self.config.protected_mode and not all(map(_is_loopback, self.config.metrics_bind)):
                return _plain(
                    403,
                    "metrics-bind reaches beyond this machine: the console wants a user with a password (requirepass).",
                )
            if not _is_address(request.headers.get("host", "")):
                return _plain(
                    403, "Without a password the console is reached by an address or as localhost, not by another name."
                )
        if request.method not in READ_METHODS and (request.method, request.path) != ("POST", "/api/key"):
            return _plain(405, "Only GET is answered here.")
        async with visitor:
            return await self._console[request.path](request, visitor)

    async def _metrics(self, request: Request) -> Response:
        try:
            snapshot = await self._source.snapshot()
        except SourceError:
            snapshot = None  # as redis_exporter does: redis_up is 0
        text, content_type = exposed(snapshot, request.headers.get("accept", ""))
        return Response(200, content_type, text)

    async def _health(self, _request: Request) -> Response:
        await self._source.ping()
        return _plain(200, "The cluster answers.")

    async def _readiness(self, _request: Request) -> Response:
        # The supervisor's view first: it does not depend on the one router that would be asked.
        reasons = "\n".join(unready(await self._status())) or await self._source.unready()
        return _plain(503, reasons) if reasons else _plain(200, "Every router and shard is up.")

    # The console ------------------------------------------------------------------------------------------------------

    async def _page(self, _request: Request, _visitor: Visitor) -> Response:
        headers = (("Content-Security-Policy", self._policy), ("Referrer-Policy", "no-referrer"))
        return Response(200, "text/html; charset=utf-8", self._html, headers)

    async def _now(self, _request: Request, visitor: Visitor) -> Response:
        told = await console.now(visitor, await self._source.snapshot(), self._source.interval)
        return _json(told | {"version": __version__, "writes": self.config.console_writes})

    async def _history(self, _request: Request, _visitor: Visitor) -> Response:
        return _json(list(self._source.history))

    async def _keys(self, request: Request, visitor: Visitor) -> Response:
        return _json(await console.key_page(visitor, request.query))

    async def _key(self, request: Request, visitor: Visitor) -> Response:
        if request.method in READ_METHODS:
            return _json(await console.one_key(visitor, request.query))
        if not self.config.console_writes:
            return _plain(403, "The console is read-only: CONFIG SET console-writes yes lets it change keys.")
        if PROOF not in request.headers:
            return _plain(403, f"A change wants the header {PROOF}.")
        return _json(await console.changed(visitor, request.body))


def _given(authorization: str) -> tuple[str, str]:
    """(name, password) of a Basic header; whatever it is, it is compared."""
    kind, _, data = authorization.partition(" ")
    try:
        name, _, password = base64.b64decode(data, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return (name, password) if kind.lower() == "basic" else ("", "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(host: str) -> bool:
    """Whether a Host header names an address, or localhost."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def _content_policy(html: str) -> str:
    """Only what the page itself has is run and drawn."""

    def allowed(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    return (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')} 'unsafe-hashes'; style-src-attr "
        "'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
