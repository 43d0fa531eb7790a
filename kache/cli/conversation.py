"""The conversation of ``kache shell`` with a cluster: a connection, and what it was told about itself.

A connection may be lost, the cluster may be away for a while; the next one is what the user believes to talk to: the same
database, the same name, authenticated. Where it cannot be made so, there is none, and the user is told. Nothing is sent
twice, and nothing is sent to another database than the prompt shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kache.cli.connection import Address, Connection
from kache.cli.exits import Failure
from kache.errors import CommandError

__all__ = ["Conversation"]


class Conversation:
    """Talks to one address. `request` raises CommandError for an error reply, Failure when there is no connection."""

    def __init__(self, address: Address) -> None:
        self.db = address.db
        self.name: bytes | None = None
        self.in_transaction = False
        self.needs_password = False
        self._address = address
        self._credentials: list[str | bytes] = [*address.credentials]
        self._queued_db: int | None = None
        self._connection: Connection | None = None

    @property
    def prompt(self) -> str:
        """``127.0.0.1:7379[3]> ``: the address, the database unless it is 0, and whether a transaction is open."""
        where = self._address.where
        if self._connection is None:
            return f"{where} (not connected)> "
        return f"{where}{f'[{self.db}]' if self.db else ''}{'(TX)' if self.in_transaction else ''}> "

    def connect(self) -> None:
        """Have a connection in the state that the user knows; raises Failure, and then there is none."""
        if self._connection is not None:
            return
        connection = Connection(self._address._replace(password=None, user=None, db=0))
        try:
            if self._credentials:
                connection.request(["auth", *self._credentials])
                connection.request(["hello", "3"])
            elif connection.needs_password:
                self.needs_password = True
                self._connection = connection  # for whoever types AUTH; `_settle` is still to come
                return
            self._settle(connection)
        except CommandError as error:
            connection.close()
            raise Failure(
                f"Connected to {self._address.where}, but it cannot be as before{self._as_before()}, so the connection "
                f"was closed: {error.message}"
            ) from None
        except BaseException:
            connection.close()
            raise
        self.needs_password = False
        self._connection = connection

    def _settle(self, connection: Connection) -> None:
        if self.name is not None:
            connection.request(["client", "setname", self.name])
        if self.db:
            connection.request(["select", str(self.db)])

    def _as_before(self) -> str:
        parts = [f"database {self.db}"] if self.db else []
        parts += [f"name {self.name.decode('utf-8', 'replace')}"] if self.name is not None else []
        return f" ({', '.join(parts)})" if parts else ""

    def request(self, words: Sequence[bytes]) -> Any:
        """Send one command and return its reply; a lost connection is made again first."""
        command = [word.lower() for word in words[:2]]
        if self._connection is None and command[:1] == [b"auth"] and len(words) in (2, 3):
            self._remember_credentials(words[1:])  # it may be why there is no connection
            self.connect()
            return b"OK"
        self.connect()
        assert self._connection is not None
        try:
            reply = self._connection.request(words)
        except (Failure, KeyboardInterrupt):
            self.disconnect()
            raise
        except CommandError as error:
            # EXEC ends it whatever else becomes of it, but for one with arguments.
            if command[:1] == [b"exec"] and error.code != "ERR":
                self._end_transaction()
            raise
        self._follow(command, words, reply)
        return reply

    def disconnect(self) -> None:
        """Give the connection up: it is lost, or replies that nobody waits for may still come."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._end_transaction()

    def _follow(self, command: Sequence[bytes], words: Sequence[bytes], reply: Any) -> None:
        """Remember what the command has changed about the connection."""
        first = command[0]
        if first == b"select" and len(words) == 2:
            if self.in_transaction:
                self._queued_db = int(words[1])
            else:
                self.db = int(words[1])
        elif first == b"auth":
            self._remember_credentials(words[1:])
            self._after_password()
        elif first == b"hello":
            self._follow_hello(words)
        elif command == [b"client", b"setname"]:
            self.name = bytes(words[2]) or None
        elif first == b"reset":
            self.db, self.name, self._credentials = 0, None, []
            self._end_transaction()
        elif first == b"multi":
            self.in_transaction = True
        elif first in (b"exec", b"discard") and self.in_transaction:
            if first == b"exec" and reply is not None and self._queued_db is not None:
                self.db = self._queued_db
            self._end_transaction()

    def _follow_hello(self, words: Sequence[bytes]) -> None:
        rest = list(words[2:])
        while rest:
            option = rest.pop(0).lower()
            if option == b"auth" and len(rest) >= 2:
                self._remember_credentials(rest[:2])
                del rest[:2]
                self._after_password()
            elif option == b"setname" and rest:
                self.name = bytes(rest.pop(0)) or None

    def _remember_credentials(self, given: Sequence[bytes]) -> None:
        self._credentials = list(given)

    def _after_password(self) -> None:
        """What had to wait until the password was given."""
        if self.needs_password and self._connection is not None:
            self.needs_password = False
            self._connection.request(["hello", "3"])
            self._settle(self._connection)

    def _end_transaction(self) -> None:
        self.in_transaction, self._queued_db = False, None
