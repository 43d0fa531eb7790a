"""A small HTTP/1.1 server: h11 knows the protocol, asyncio the sockets, and here are the limits.

Owns the connections. One answer at a time on each; whoever says nothing for `IDLE_SECONDS`, or sends more than is allowed,
is answered and closed. Every answer is a `Response` of the one handler; its exceptions are logged and answered 500.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from socket import socket
from ssl import SSLContext
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import h11

__all__ = ["MOST_CONNECTIONS", "Request", "Response", "Server"]

MOST_CONNECTIONS = 64
"""Scrapers and browsers are few; the descriptors are for them alone."""
IDLE_SECONDS = 30.0
TLS_SECONDS = 5.0
"""For a TLS handshake."""
BODY_BYTES = 1 << 20
"""More is asked of nobody: what a person types into the console."""
LINGER_BYTES = 4 << 20
LINGER_SECONDS = 2.0
"""What is still read of a request that was refused, and for how long."""

_log = logging.getLogger("kache.metrics")


class Request(NamedTuple):
    """What was asked: names of headers in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """What is answered."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


def _text(status: int, words: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", words.encode() + b"\n")


class Server:
    """Answers on sockets that listen already."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, sock: socket, tls: SSLContext | None = None) -> None:
        """Accept on `sock`, with `tls` after a handshake."""
        patience = TLS_SECONDS if tls is not None else None
        self._servers.append(
            await asyncio.start_server(self._on_connection, sock=sock, ssl=tls, ssl_handshake_timeout=patience)
        )

    async def close(self) -> None:
        """Accept nothing more and close what is open."""
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(h11.Connection(h11.SERVER), reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # gone, silent for too long, or we are leaving
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    request = await _next_request(http, reader)
                if request is None:
                    return
            except h11.RemoteProtocolError as error:
                # What follows cannot be told apart from it.
                await _send(http, writer, _text(error.error_status_hint, f"This is no request: {error}."))
                return await _linger(reader, writer)
            await _send(http, writer, await self._respond(request), request.method != "HEAD")
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except Exception:
            _log.exception("internal error with %s %s", request.method, request.path)
            return _text(500, "Internal error; the log of the cluster has it.")


async def _next_request(http: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The next one, whole; None when the peer has closed. Raises RemoteProtocolError for what is none, or too large."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise h11.RemoteProtocolError("its body is too large", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return _request(head, bytes(body))
        else:  # ConnectionClosed, or PAUSED behind a request that wants another protocol
            return None


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what is still on its way: closing with it unread would reset the connection, and the answer with it."""
    if writer.can_write_eof():  # not with TLS
        writer.write_eof()
    left = LINGER_BYTES
    async with asyncio.timeout(LINGER_SECONDS):
        while left > 0 and (data := await reader.read(65536)):
            left -= len(data)


def _request(head: h11.Request, body: bytes) -> Request:
    try:
        url = urlsplit(head.target.decode())
    except ValueError:
        raise h11.RemoteProtocolError("its target is no path", error_status_hint=400) from None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode(), url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers, body)


async def _send(http: h11.Connection, writer: asyncio.StreamWriter, response: Response, with_body: bool = True) -> None:
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *response.headers,
    ]
    data = http.send(h11.Response(status_code=response.status, headers=headers)) or b""
    data += http.send(h11.Data(data=response.body if with_body else b"")) or b""
    data += http.send(h11.EndOfMessage()) or b""
    writer.write(data)
    async with asyncio.timeout(IDLE_SECONDS):
        await writer.drain()
