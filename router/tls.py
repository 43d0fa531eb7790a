"""TLS of one router: its certificate, when it is read again, and who its clients are.

Owns the pool that new connections get their context from (kache/wire/tls.pyx) and the listeners of the TLS port until they
are served. A router that finds files it cannot use, because they were broken behind a restart, serves everything else,
leaves those clients to the other routers, says so, and tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kache.cluster.certificates import LIVE, Certificate, CertificateError, loaded, say_expiry
from kache.cluster.messages import TlsIs
from kache.config.settings import Config
from kache.wire.tls import TlsPool

from .mux.multiplexer import Router, Session

if TYPE_CHECKING:
    import asyncio

__all__ = ["Tls", "names"]

AGAIN_SECONDS = 10.0
EXPIRY_SECONDS = 3600.0
"""Between two looks at how long the certificate is valid."""

_log = logging.getLogger("kache.router")


class Tls:
    """`tell` sends the supervisor what is served. `fds` are the listeners of the port that speaks TLS."""

    def __init__(
        self,
        router: Router,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        fds: Sequence[int],
        tell: Callable[[TlsIs], None],
    ) -> None:
        self._router = router
        self._loop = loop
        self._config = config
        self._fds = list(fds)
        self._tell = tell
        self._pool: TlsPool | None = None
        self._prepared: Certificate | None = None
        self._told: set[int] = set()
        self._warned: set[bytes] = set()
        self._router.on_secured = self._on_secured if config.tls_auth_clients_user != "off" else None
        self.certificate: Certificate | None = None

    def start(self) -> None:
        """Listen, now or as soon as there is a certificate that can be used."""
        if not self._fds:
            return
        try:
            self._serve(loaded(self._config))
        except CertificateError as error:
            _log.warning("the TLS port is not served: %s", error)
            self._tell(TlsIs("", 0, str(error)))
            self._loop.call_later(AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        if self._pool is None:
            self.start()

    def _serve(self, certificate: Certificate) -> None:
        self.certificate = certificate
        if self._pool is None:
            self._pool = TlsPool(certificate.context)
            self._pool.on_trouble = _on_trouble
            self._router.serve_tls(self._pool)
            for fd in self._fds:
                self._router.listen(fd, sealed=True)
            if self._router.index == 0:
                self._look_at_expiry()
        else:
            self._pool.use(certificate.context)
        self._told.clear()
        self._tell(TlsIs(certificate.serial, certificate.expires))

    def prepare(self) -> None:
        """Read the files again; raises CertificateError."""
        self._prepared = loaded(self._config) if self._fds else None

    def commit(self) -> None:
        """Serve with what was prepared."""
        if self._prepared is not None:
            certificate, self._prepared = self._prepared, None
            self._serve(certificate)

    def apply(self, config: Config) -> None:
        """Go by these settings; raises CertificateError if they cannot be, and then nothing has changed."""
        before, self._config = self._config, config
        self._router.on_secured = self._on_secured if config.tls_auth_clients_user != "off" else None
        if self._pool is not None and any(getattr(before, name) != getattr(config, name) for name in LIVE):
            try:
                self._serve(loaded(config))
            except CertificateError:
                self._config = before
                raise

    def _on_secured(self, session: Session) -> None:
        """Its client has shown what it is: the first name of its certificate that is an enabled user's. One that is nobody's
        is the default user's, and noted in ACL LOG."""
        try:
            certificate = session.certificate or {}
        except ValueError:
            certificate = {}  # a name that is no UTF-8 is nobody's
        accounts = self._router.accounts
        found = [name.encode() for name in names(certificate, self._config.tls_auth_clients_user)]
        for name in found:
            if accounts.log_in(session, name):
                self._look_at_password(session)
                return
        accounts.refused(session, "tls-cert", "toplevel", found[0] if found else b"", found[0] if found else None)

    def _look_at_password(self, session: Session) -> None:
        """A user of certificates who is `nopass` is anybody's: AUTH with this name succeeds from everywhere."""
        if session.rights.nopass and session.rights.name != b"default" and session.rights.name not in self._warned:
            self._warned.add(session.rights.name)
            _log.warning(
                "user %s logs in by certificate and is nopass: anybody may AUTH with this name; use resetpass", session.user
            )

    def _look_at_expiry(self) -> None:
        if self.certificate is not None:
            self._told = say_expiry(self.certificate.expires, self._told, _log.warning)
        self._loop.call_later(EXPIRY_SECONDS, self._look_at_expiry)


def names(certificate: Mapping[str, Any], which: str) -> list[str]:
    """The names of users that a certificate (`ssl.SSLSocket.getpeercert`) can stand for; `which`: cn or uri.

    A certificate with several common names, or a name with a NUL or another control character in it, is nobody's: what a CA
    has read in it may differ from what is compared here.
    """
    if which == "cn":
        found = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        found = found if len(found) == 1 else []
    else:
        found = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    return [name for name in found if name and all(ord(letter) >= 32 and ord(letter) != 127 for letter in name)]


def _on_trouble(session: Session, failure: str) -> None:
    _log.warning("no TLS with %s: %s", session.address, failure)
