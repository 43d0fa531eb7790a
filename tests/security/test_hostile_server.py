"""Both clients and the command line against a server that answers what it likes: an error, soon, and no memory for promises."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from kache import AsyncClient, Client
from kache.cli.connection import Address, Connection
from kache.cli.exits import Failure
from kache.errors import KacheError

TIMEOUT = 2.0
MOST_GROWTH_KIB = 96 * 1024


def frame(length: int, status: int, rest: bytes) -> bytes:
    return struct.pack("<II", length, status) + rest


BINARY = [
    frame(0xFFFFFFFF, 0, b""),
    frame(0x7FFFFFFF, 0, b"\x02"),
    frame(0, 0, b""),
    frame(4, 0, b""),
    frame(5, 0xFFFFFFFF, b"\x00"),
    frame(9, 0, b"\x02" + struct.pack("<I", 0xFFFFFFFF)),
    frame(9, 0, b"\x05" + struct.pack("<I", 0xFFFFFFFF)),
    frame(9, 0, b"\x05" + struct.pack("<I", 0x10000000)),
    frame(4 + 5 * 5000, 0, (b"\x05" + struct.pack("<I", 1)) * 5000),
    frame(5, 0, b"\xff"),
    b"-ERR go away\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"",
]
RESP = [
    b"*2147483647\r\n",
    b"*9223372036854775807\r\n",
    b"*-2\r\n",
    b"$9223372036854775807\r\n",
    b"$99999999999999999999999\r\n",
    b"$-7\r\n",
    b"!-1\r\n",
    b"!-9\r\n",
    b"%1\r\n*0\r\n:1\r\n",
    b"%1\r\n%0\r\n:1\r\n",
    b"~1\r\n*1\r\n:1\r\n",
    b"%4294967295\r\n",
    b"*1\r\n" * 100_000,
    b"=3\r\nabc\r\n",
    b"(" + b"9" * 100_000 + b"\r\n",
    b",1e999999\r\n",
    b"\x00\x01\x02",
    b"",
]


class Server:
    """Says the same to everybody, and closes."""

    def __init__(self) -> None:
        self.says = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(TIMEOUT)
                    connection.recv(65536)
                    connection.sendall(self.says)
                except OSError:
                    pass  # it has heard enough

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield server
    server.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KIB


def mutated(bases: list[bytes]) -> Iterator[bytes]:
    dice = random.Random(12)
    yield from bases
    for _ in range(200):
        data = bytearray(dice.choice(bases)[:2000] + dice.randbytes(dice.randint(0, 40)))
        for _ in range(dice.randint(1, 5)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        yield bytes(data)


def test_the_client(server: Server) -> None:
    for server.says in mutated(BINARY):
        with Client(port=server.port, timeout=TIMEOUT) as client:
            try:
                client.execute("get", "k")
            except KacheError:
                pass


def test_the_async_client(server: Server) -> None:
    async def ask() -> None:
        for server.says in mutated(BINARY):
            async with AsyncClient(port=server.port, timeout=TIMEOUT) as client:
                try:
                    await client.execute("get", "k")
                except KacheError:
                    pass

    asyncio.run(ask())


def test_the_command_line(server: Server) -> None:
    for server.says in mutated(RESP):
        try:
            connection = Connection(Address("127.0.0.1", server.port, timeout=TIMEOUT))
        except (Failure, KacheError):
            continue
        connection.close()
