"""Questions to every master of a Redis Cluster, and to one node on a connection of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from kache.backend.conversation import command
from kache.errors import CommandError
from kache.replies import Verbatim
from kache.wire.codec import ReplyTooShort, decode_reply

if TYPE_CHECKING:
    from kache.backend.address import Node

    from ..mux.multiplexer import Router, Session
    from .director import Director

__all__ = ["ask_all", "converse", "keyspace_of_all"]

ANSWER_SECONDS: Final = 1.0
"""How long a node may take to be reached, and then to answer."""


async def ask_all(router: Router, session: Session, *words: bytes) -> list[Any]:
    """The replies of all masters. Raises CommandError: the first error, once all have answered."""
    director = router.remote.director
    lanes = [await director.lane(number, session) for number in director.masters()]
    if not lanes:
        raise CommandError("CLUSTERDOWN no node owns a slot; nothing was executed")
    asked = [router.remote.ask_node(lane, list(words)) for lane in lanes]
    replies, failure = [], None
    for question in asked:
        try:
            replies.append(await question)
        except CommandError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return replies


async def keyspace_of_all(router: Router, session: Session) -> dict[int, list[int]]:
    """By database what all masters count in it: keys, those with a time to live, and that number times their average time in
    milliseconds; empty when one does not say."""
    databases: dict[int, list[int]] = {}
    try:
        replies = await ask_all(router, session, b"INFO", b"keyspace")
    except CommandError:
        return {}
    for reply in replies:
        text = bytes(reply.text if isinstance(reply, Verbatim) else reply).decode("utf-8", "replace")
        for line in text.split("\r\n"):
            name, _, fields = line.partition(":")
            counts = dict(field.split("=", 1) for field in fields.split(",") if "=" in field)
            if name.startswith("db") and name[2:].isdigit():
                row = databases.setdefault(int(name[2:]), [0, 0, 0])
                keys, expires, ttl = (int(counts.get(each, 0)) for each in ("keys", "expires", "avg_ttl"))
                row[:] = row[0] + keys, row[1] + expires, row[2] + ttl * expires
    return databases


async def converse(director: Director, address: Node, *commands: tuple[str, ...]) -> list[Any]:
    """The answers of one node to several questions; errors are among them. Raises OSError, TimeoutError or EOFError when it is
    not reached or does not answer, CommandError when it does not want the password."""
    reader, writer = await asyncio.wait_for(director.open(address), ANSWER_SECONDS)
    try:
        user, password = director.config.backend_user, director.config.backend_password
        login = [("AUTH", *((user,) if user else ()), password)] if password else []
        writer.write(b"".join([command(*words) for words in (*login, *commands)]))
        replies = await asyncio.wait_for(_replies(reader, len(login) + len(commands)), ANSWER_SECONDS)
    finally:
        writer.close()
    if login and isinstance(replies[0], CommandError):
        raise replies[0]
    return replies[len(login) :]


async def _replies(reader: asyncio.StreamReader, count: int) -> list[Any]:
    received = b""
    found: list[Any] = []
    while len(found) < count:
        try:
            reply, end = decode_reply(received)
        except ReplyTooShort:
            more = await reader.read(65536)
            if not more:
                raise EOFError("the connection was closed") from None
            received += more
            continue
        received = received[end:]
        found.append(reply)
    return found
