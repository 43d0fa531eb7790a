"""The listening sockets of a cluster, bound once by the supervisor and handed to its children.

Because the supervisor keeps them open, a child that is being restarted refuses nobody: connections wait in the
backlog. Everything returned is a plain descriptor, non-blocking and close-on-exec, which the caller owns.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
import time
from collections.abc import Sequence

from kache.cluster.processes import listener_of_port
from kache.errors import KacheError

__all__ = ["ClientSocket", "ListenError", "bind_tcp", "bind_unix"]

SUN_PATH_MOST = 103
"""Bytes of a path that a Unix socket can have everywhere: 104 with the final NUL on macOS, 108 on Linux."""

SHARD_BACKLOG = 64
"""Only routers connect to a shard."""


class ListenError(KacheError):
    """An address cannot be listened on; the message is one sentence."""


class _AbsentError(ListenError):
    """This machine has no such address."""


def bind_tcp(hosts: Sequence[str], port: int, backlog: int, patience: float = 0.0) -> tuple[list[int], int]:
    """Listen on `port` of every host; returns the descriptors and the port, which differs when `port` is 0.

    An address in use is tried again for `patience` seconds: the children of a supervisor that was killed need a
    moment to go. Raises ListenError.
    """
    until = time.monotonic() + patience
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            bound += _listen_on_all(_resolve(host, port), port, backlog, until)
            port = port or bound[0].getsockname()[1]
    except ListenError:
        for sock in bound:
            sock.close()
        raise
    return [sock.detach() for sock in bound], port


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    name = None if host in ("*", "") else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ListenError(f"There is no address '{host}'.") from None
    unique = {(family, address[:2]): None for family, _, _, _, address in found}
    return [(family, (str(address[0]), int(address[1]))) for family, address in unique]


def _listen_on_all(
    addresses: list[tuple[socket.AddressFamily, tuple[str, int]]], port: int, backlog: int, until: float
) -> list[socket.socket]:
    """Sockets on all addresses of one host; of several (localhost, *), some may be of a family not in use here."""
    bound: list[socket.socket] = []
    absent: ListenError | None = None
    try:
        for family, (host, _) in addresses:
            try:
                bound.append(_listen(family, (host, port), backlog, until))
            except _AbsentError as error:
                absent = error
            else:
                port = port or bound[0].getsockname()[1]
        if not bound and absent is not None:
            raise absent
    except ListenError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _listen(family: socket.AddressFamily, address: tuple[str, int], backlog: int, until: float) -> socket.socket:
    while True:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise _AbsentError(_cannot_listen(address, error)) from None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(backlog)
            sock.setblocking(False)
            return sock
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise _AbsentError(_cannot_listen(address, error)) from None
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise ListenError(_cannot_listen(address, error)) from None
            time.sleep(0.02)


def _cannot_listen(address: tuple[str, int], error: OSError) -> str:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        holder = listener_of_port(port)
        return f"Port {port} on {host} is in use{f' by {holder}' if holder else ''}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine."
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has."
    return f"Port {port} on {host} cannot be listened on: {error.strerror}."


class ClientSocket:
    """The Unix socket on which clients find the cluster, beside the port.

    A stale file of the same name, left by a cluster that was killed, is replaced; a socket that somebody answers on is
    not, nor is any other file. It is not made where others could put one of theirs in its place, and belongs to `group`
    (a name or a number; empty: that of the process). Raises ListenError.
    """

    def __init__(self, path: str, mode: int, backlog: int, patience: float = 0.0, group: str = "") -> None:
        self.path = path
        if len(os.fsencode(path)) > SUN_PATH_MOST:
            raise ListenError(f"The path {path} is too long for a Unix socket (at most {SUN_PATH_MOST} bytes).")
        number = _group(group) if group else -1
        _refuse_shared_folder(path)
        _clear_stale(path, time.monotonic() + patience)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Nobody gets in before the mode is the one that was asked for.
        before = os.umask(0o777)
        try:
            sock.bind(path)
            if group:
                os.chown(path, -1, number)
            os.chmod(path, mode)
            found = os.stat(path)
        except OSError as error:
            sock.close()
            raise ListenError(f"The Unix socket {path} cannot be made: {error.strerror}.") from None
        finally:
            os.umask(before)
        self._identity = (found.st_dev, found.st_ino)
        sock.listen(backlog)
        sock.setblocking(False)
        self.fd = sock.detach()

    def remove(self) -> None:
        """Take the file away, unless it is another's by now; the descriptor is closed by whoever has it."""
        try:
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self.path)
        except OSError:
            pass


def _group(name: str) -> int:
    if name.isascii() and name.isdigit() and int(name) < 2**32 - 1:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ListenError(f"There is no group '{name}' (unixsocketgroup).") from None


def _refuse_shared_folder(path: str) -> None:
    """Where everybody may rename files (no sticky bit), clients of this path could be led to somebody else's socket."""
    folder = os.path.dirname(path)
    try:
        mode = os.stat(folder).st_mode
    except OSError as error:
        raise ListenError(f"The Unix socket {path} cannot be made: {error.strerror}.") from None
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise ListenError(
            f"The Unix socket {path} is not made in a directory where everybody may replace it: chmod o-w {folder}, or "
            "choose another."
        )


def _clear_stale(path: str, until: float) -> None:
    """Remove a socket that nobody answers on, waiting for those who are on their way out."""
    while True:
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise ListenError(f"{path} is there already and is not a socket.")
        except FileNotFoundError:
            return
        except OSError as error:
            raise ListenError(f"The Unix socket {path} cannot be made: {error.strerror}.") from None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(path)
        if answer in (errno.ECONNREFUSED, errno.ENOENT):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ListenError(f"The stale socket {path} cannot be removed: {error.strerror}.") from None
            return
        if time.monotonic() > until:
            raise ListenError(f"The Unix socket {path} is in use by another server.")
        time.sleep(0.02)


def bind_unix(path: str, backlog: int = SHARD_BACKLOG) -> int:
    """Listen on the Unix socket `path`, for this user alone; a stale one of the same name is replaced."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise ListenError(f"The socket {path} cannot be made: {error.strerror}.") from None
    finally:
        os.umask(before)
    sock.listen(backlog)
    sock.setblocking(False)
    return sock.detach()
