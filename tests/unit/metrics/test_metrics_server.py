"""The HTTP of the metrics port: whole, byte by byte, malformed, too much."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from kache.metrics import server
from kache.metrics.server import Request, Response, Server


async def echo(request: Request) -> Response:
    if request.path == "/fails":
        raise RuntimeError("on purpose")
    return Response(200, "text/plain", f"{request.method} {request.path} {request.query} {request.body!r}".encode())


def conversation(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """`talk` with a server that echoes."""

    async def run() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        serving = Server(echo)
        await serving.listen(sock)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        try:
            async with asyncio.timeout(20):
                await talk(reader, writer)
        finally:
            writer.close()
            await serving.close()

    asyncio.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length"))
    return int(head.split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_requests_one_behind_the_other_in_any_pieces(size: int) -> None:
    data = b"GET /a?b=c&d= HTTP/1.1\r\nHost: x\r\n\r\nPOST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz"

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
        assert await answer(reader) == (200, b"GET /a {'b': 'c', 'd': ''} b''")
        assert await answer(reader) == (200, b"POST /e {} b'xyz'")

    conversation(talk)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # without Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b"z" * 1_100_000, 413),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
def test_what_is_wrong_is_answered(data: bytes, status: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        found, words = await answer(reader)
        assert found == status
        assert words.endswith(b".\n")
        if status != 500:
            assert await reader.read() == b""

    conversation(talk)


def test_head_has_no_body() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n")

    conversation(talk)


def test_who_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HT")
        assert await reader.read() == b""

    conversation(talk)


def test_one_too_many_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        await answer(reader)
        host, port = writer.get_extra_info("peername")
        other, closing = await asyncio.open_connection(host, port)
        assert await other.read() == b""
        closing.close()

    conversation(talk)
