"""TLS of the clients: what they are given as a context, and a socket that behaves as one without TLS.

A certificate is verified, and so is the name of the server, unless a context says otherwise. `ssl` is imported only by who
asks for TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kache.client.errors import ConnectError

if TYPE_CHECKING:
    import socket
    from ssl import SSLContext, SSLSocket

__all__ = ["SealedSocket", "Tls", "refusal", "tls_of"]

_READ_SIZE = 16384
"""Plain text of one record: a read asks for no less, so that nothing stays in OpenSSL that no descriptor tells of."""

Tls = tuple["SSLContext", str]
"""With which context to connect, and the name that the server's certificate must have."""


def tls_of(
    tls: object,
    ca: object,
    cert: object,
    key: object,
    server_hostname: object,
    host: str,
    unixsocket: str | None,
) -> Tls | None:
    """What the arguments of a client stand for; None without TLS. Raises TypeError or ValueError for what cannot be meant."""
    for name, path in (("ca", ca), ("cert", cert), ("key", key), ("server_hostname", server_hostname)):
        if not isinstance(path, str | None):
            raise TypeError(f"{name} must be a str or None, not {path!r}")
    if tls is False or tls is None:
        given = [name for name, path in (("ca", ca), ("cert", cert), ("key", key)) if path is not None]
        if given:
            raise ValueError(f"{given[0]} is for TLS: say tls=True as well")
        return None
    import ssl

    if unixsocket is not None:
        raise ValueError("tls is for a host and a port, not for a unixsocket")
    name = str(server_hostname or host)
    if isinstance(tls, ssl.SSLContext):
        if ca is not None or cert is not None or key is not None:
            raise ValueError("a context has its certificates already: give tls=True, or no ca, cert and key")
        return tls, name
    if tls is not True:
        raise TypeError(f"tls must be True, False or an ssl.SSLContext, not {tls!r}")
    return _context(ca, cert, key), name


def _context(ca: Any, cert: Any, key: Any) -> SSLContext:
    import ssl

    if key is not None and cert is None:
        raise ValueError("key is that of a certificate: give cert as well")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(f"ca {ca} holds no certificates that can be read: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            # A callback in any case: without one OpenSSL would ask a person at the terminal.
            context.load_cert_chain(cert, key, lambda: "")
        except OSError as error:
            raise ValueError(f"cert {cert} and its key cannot be used: {error.strerror or error}") from None
    return context


def refusal(error: OSError) -> str:
    """Why the other side wants no TLS with us, in words; empty if the error is another one."""
    if type(error).__module__ != "ssl":
        return ""
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(reason).replace("_", " ").lower()


class SealedSocket:
    """A connected TLS socket with the methods that the clients use, which raise what those of a plain socket do."""

    def __init__(self, plain: socket.socket, tls: Tls) -> None:
        """Shakes hands over `plain`, which is closed if that fails; raises OSError."""
        import ssl

        self._want = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._heard = False
        try:
            self._socket: SSLSocket = tls[0].wrap_socket(plain, server_hostname=tls[1])
        except BaseException:
            plain.close()
            raise

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes, or a record more. BlockingIOError when there is nothing; ConnectError when the server has
        refused us: a client without the certificate that it wants is told behind its handshake."""
        parts: list[bytes] = []
        left = size
        while left > 0:
            try:
                data = self._socket.recv(max(left, _READ_SIZE))
            except self._want:
                if parts:
                    break
                raise BlockingIOError from None
            except OSError as error:
                why = "" if self._heard else refusal(error)
                if parts:
                    break
                if why:
                    raise ConnectError(f"the server refuses TLS with this client: {why}") from error
                raise
            parts.append(data)
            left -= len(data)
            if not data or self._socket.gettimeout() != 0.0:
                break
        self._heard = True
        return b"".join(parts)

    def send(self, data: memoryview) -> int:
        """How many bytes were taken; BlockingIOError when there was no room."""
        try:
            return self._socket.send(data)
        except self._want:
            raise BlockingIOError from None

    def sendall(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def fileno(self) -> int:
        """For poll and select."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._socket.setblocking(flag)

    def settimeout(self, seconds: float | None) -> None:
        """As of a socket."""
        self._socket.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        """As of a socket: wakes who waits in it."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """At once."""
        self._socket.close()
