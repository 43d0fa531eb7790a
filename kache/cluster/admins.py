"""The admin socket: the command line's conversations with the supervisor, on the supervisor's selector."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from kache.cluster.control import Conversation
from kache.cluster.messages import Down

__all__ = ["Admins"]

MOST_CONNECTED = 64
"""Conversations at a time: only the owner of the cluster gets here, but children must find descriptors left."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

_log = logging.getLogger("kache")


def _is_owner(sock: socket.socket) -> bool:
    """Whether the user of this process, or root, is at the other end, where the system can tell (Linux).

    The directory lets nobody else in; this holds too where its mode has been changed under a running cluster.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _pid, user, _group = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user in (os.geteuid(), 0):
        return True
    _log.warning("user %d was refused on the admin socket", user)
    return False


class Admins:
    """Everybody who is connected to the admin socket; `on_request` gets what they ask."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        on_request: Callable[[Conversation, Any], None],
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._on_request = on_request
        self._connected: set[Conversation] = set()
        selector.register(listener, selectors.EVENT_READ, self._on_connection)

    def listen(self, listener: socket.socket) -> None:
        """Go on with another listener, since nobody can find the one so far any more."""
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._on_connection)

    def __contains__(self, conversation: Conversation) -> bool:
        return conversation in self._connected

    def _on_connection(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("the admin socket accepts nobody: %s", error.strerror)
            time.sleep(0.05)  # out of descriptors: do not spin
            return
        if len(self._connected) >= MOST_CONNECTED or not _is_owner(sock):
            sock.close()
            return
        admin = Conversation(sock)
        self._connected.add(admin)
        self._selector.register(admin, selectors.EVENT_READ, lambda mask: self._on_ready(admin, mask))

    def _on_ready(self, admin: Conversation, mask: int) -> None:
        if admin not in self._connected:
            return  # dropped since it was selected
        alive = False
        try:
            alive = self._converse(admin, mask)
        finally:
            if alive and not admin.overflows:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if admin.wants_write else 0)
                self._selector.modify(admin, events, lambda mask: self._on_ready(admin, mask))
            else:
                self._selector.unregister(admin)
                self._connected.discard(admin)
                admin.close()

    def _converse(self, admin: Conversation, mask: int) -> bool:
        alive = admin.on_writable() if mask & selectors.EVENT_WRITE else True
        if alive and mask & selectors.EVENT_READ:
            messages, alive = admin.on_readable()
            for message in messages:
                self._on_request(admin, message)
        return alive

    def send(self, admin: Conversation, message: Down) -> None:
        """Send a message to one that is still here, now or as soon as it takes it."""
        if admin in self._connected:
            admin.send(message)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if admin.wants_write else 0)
            self._selector.modify(admin, events, lambda mask: self._on_ready(admin, mask))

    def abandon(self) -> None:
        """In a forked child: let go of every socket object."""
        self._listener.detach()
        for admin in self._connected:
            admin.abandon()

    def close(self) -> None:
        """Close the connections; the listener belongs to whoever made it."""
        for admin in self._connected:
            admin.close()
