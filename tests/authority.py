"""Certificates for a test, of a CA of its own, and clusters that serve TLS with them.

    with TlsCluster(shards=2) as cluster:
        cluster.secure().request("set", "k", "v")

Ports are chosen free; where another process takes one in the moment before the cluster does, others are tried.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme
from cluster import DEADLINE, Cluster, Connection
from ports import free_ports

ATTEMPTS = 5


class Authority:
    """A CA, and files of what it has signed in `directory`."""

    def __init__(self, directory: Path, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        self.directory = directory
        self._key_type = key_type
        self._ca = trustme.CA(key_type=key_type)
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.cert_file, self.key_file = self.issue("server", "localhost", "127.0.0.1", "::1")

    def issue(
        self,
        name: str,
        *identities: str,
        common_name: str | None = None,
        not_before: datetime.datetime | None = None,
        not_after: datetime.datetime | None = None,
    ) -> tuple[Path, Path]:
        """A new certificate and its key, as `name`.pem and `name`.key; files of that name are replaced."""
        leaf = self._ca.issue_cert(
            *identities, common_name=common_name, key_type=self._key_type, not_before=not_before, not_after=not_after
        )
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        self._write(cert, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self._write(key, leaf.private_key_pem.bytes())
        return cert, key

    def _write(self, path: Path, data: bytes) -> None:
        new = path.with_suffix(path.suffix + ".new")
        new.write_bytes(data)
        new.chmod(0o600)
        os.replace(new, path)

    def context(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's, that trusts this CA alone, with a certificate of its own if one is given."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
        return context


class SecureConnection(Connection):
    """A RESP connection of a test over TLS."""

    def __init__(self, port: int, context: ssl.SSLContext, timeout: float = DEADLINE) -> None:
        super().__init__(port, timeout)
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise

    def exchange(self, data: bytes, expected: int, silent: float = 0) -> bytes:
        """Send everything and return the `expected` bytes that come meanwhile; nothing is read for the first `silent` seconds.

        In one thread: Python's ssl must not read and write one connection at once.
        """
        received = bytearray()
        left = memoryview(data)
        begins = time.monotonic() + silent
        ends = time.monotonic() + DEADLINE + silent
        self.socket.setblocking(False)
        try:
            while left or len(received) < expected:
                assert time.monotonic() < ends, f"{len(left)} bytes not sent, {len(received)} of {expected} received"
                reads = time.monotonic() >= begins
                select.select([self.socket] if reads else [], [self.socket] if left else [], [], 0.05)
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    while left:
                        left = left[self.socket.send(left[: 1 << 16]) :]
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    while reads and len(received) < expected:
                        more = self.socket.recv(1 << 16)
                        assert more, "the connection was closed"
                        received += more
        finally:
            self.socket.settimeout(DEADLINE)
        return bytes(received)


class TlsCluster(Cluster):
    """A cluster with a TLS port; clients need no certificate unless tls_auth_clients says so. `plain`: whether there is a
    plain port, too (the harness itself uses it)."""

    def __init__(
        self, shards: int = 1, *, plain: bool = True, authority: Authority | None = None, **options: Any
    ) -> None:
        self._own = None if authority is not None else tempfile.TemporaryDirectory(prefix="kache-tls-")
        self.authority = authority or Authority(Path(self._own.name if self._own else ""))
        self.plain = plain
        settings = {
            "tls_cert_file": self.authority.cert_file,
            "tls_key_file": self.authority.key_file,
            "tls_ca_cert_file": self.authority.ca_file,
            "tls_auth_clients": "no",
        }
        super().__init__(shards, **{**settings, **options})
        self._given = list(self._options)

    def start(self) -> None:
        for attempt in range(ATTEMPTS):
            plain, self.tls_port = free_ports(2)
            self.port = plain if self.plain else 0
            self._options = [*self._given, f"--tls-port={self.tls_port}"]
            try:
                super().start()
                return
            except AssertionError:
                if attempt == ATTEMPTS - 1 or "is in use" not in self.log():
                    raise
                self.process.wait(DEADLINE)
                assert self.process.stdout is not None
                self.process.stdout.close()
                os.close(self._tie)

    def _clean(self) -> None:
        super()._clean()
        if self._own is not None:
            self._own.cleanup()

    def secure(self, context: ssl.SSLContext | None = None, timeout: float = DEADLINE) -> SecureConnection:
        """A new connection over TLS."""
        return SecureConnection(self.tls_port, context or self.authority.context(), timeout)
