"""The TLS certificate of a cluster: from files to a context, or to one sentence saying what is wrong with them.

Read by routers and by the metrics process, each for itself; the supervisor never reads the key (`checked_in_a_child`), so
no shard has it either. Everything is refused that would only fail later, when a client connects: a key of another
certificate, a certificate that is out of date, a key that everybody can read, a rule that OpenSSL does not know. The
context is made by hand, so that nothing of the environment (SSLKEYLOGFILE, openssl.cnf's sections for programs) has a say.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from kache.config.settings import TLS_PROTOCOLS, Config
from kache.errors import KacheError

if TYPE_CHECKING:
    from ssl import SSLContext, SSLObject

__all__ = ["LIVE", "Certificate", "CertificateError", "checked_in_a_child", "fingerprint", "loaded", "say_expiry"]

LIVE = (
    "tls_auth_clients", "tls_protocols", "tls_ciphers", "tls_ciphersuites", "tls_prefer_server_ciphers", "tls_session_caching",
)  # fmt: skip
"""Fields of `Config` that a context is made of and that may change while the cluster runs."""
_FILES = ("tls_cert_file", "tls_key_file", "tls_ca_cert_file", "tls_ca_cert_dir")
DAY_SECONDS = 86400
WARN_DAYS = (14, 1)

_log = logging.getLogger("kache")


class CertificateError(KacheError):
    """The certificate cannot be used; one sentence that names the file and says why."""


class Certificate(msgspec.Struct):
    """A context to serve with, and what is told of its certificate."""

    context: Any
    """An ssl.SSLContext."""
    serial: str
    """Of the certificate, in hexadecimal digits."""
    expires: int
    """Unix seconds."""


def loaded(config: Config, *, for_clients: bool = True) -> Certificate:
    """What the files of `config` hold; raises CertificateError. `for_clients`: of the cluster's port, whose clients may have
    to show certificates of their own; else of the metrics port."""
    ssl = _ssl()
    _check_key_file(config)
    context = _context(config)
    if for_clients:
        _trust_clients(context, config)
    found = _own_certificate(_context(config), config)
    return Certificate(
        context=context,
        serial=str(found.get("serialNumber", "")),
        expires=int(ssl.cert_time_to_seconds(found["notAfter"])),
    )


def _ssl() -> Any:
    try:
        import ssl
    except ImportError as error:
        raise CertificateError(f"This Python cannot speak TLS: {error}.") from None
    return ssl


def _path(config: Config, name: str) -> str:
    """A file of the setting, which lies in dir when it is relative."""
    return os.path.abspath(os.path.join(config.dir, getattr(config, name)))


def _check_key_file(config: Config) -> None:
    path = _path(config, "tls_key_file")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CertificateError(f"tls-key-file {path} cannot be read: {error.strerror}.") from None
    if mode & stat.S_IROTH:
        raise CertificateError(f"tls-key-file {path} can be read by everybody on this machine: chmod o-r it.")


def _warn_of_group(config: Config) -> None:
    path = _path(config, "tls_key_file")
    if os.stat(path).st_mode & stat.S_IRGRP:
        _log.warning("tls-key-file %s can be read by its whole group", path)


def _context(config: Config) -> SSLContext:
    """The server's side without its clients' CA; raises CertificateError."""
    ssl = _ssl()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_rules(context, config)
    cert, key = _path(config, "tls_cert_file"), _path(config, "tls_key_file")
    _readable(cert, "tls-cert-file")
    _readable(key, "tls-key-file")
    try:
        # A callback in any case: without one OpenSSL would ask a person at the terminal.
        context.load_cert_chain(cert, key, lambda: config.tls_key_file_pass)
    except ssl.SSLError as error:
        raise CertificateError(_why_not_loaded(error, cert, key, config)) from None
    except (OSError, ValueError) as error:
        raise CertificateError(f"tls-cert-file {cert} and tls-key-file {key} cannot be used: {error}.") from None
    return context  # type: ignore[no-any-return]  # of a module that is imported late


def _why_not_loaded(error: Any, cert: str, key: str, config: Config) -> str:
    reason = str(error.reason or error)
    if "MISMATCH" in reason:
        return f"tls-key-file {key} is not the key of the certificate in {cert}."
    if "BAD_DECRYPT" in reason or "BAD_PASSWORD" in reason or (not error.reason and "PEM" in str(error)):
        with open(key, encoding="utf-8", errors="replace") as file:
            encrypted = "ENCRYPTED" in file.read(65536)
        if encrypted:
            known = "is not its passphrase" if config.tls_key_file_pass else "is not set"
            return f"tls-key-file {key} is encrypted, and tls-key-file-pass {known}."
    return f"tls-cert-file {cert} and tls-key-file {key} cannot be used: {reason.replace('_', ' ').lower()}."


def _set_rules(context: SSLContext, config: Config) -> None:
    ssl = _ssl()
    wanted = config.tls_protocols.replace('"', "").split() or list(TLS_PROTOCOLS)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if "TLSv1.2" in wanted else ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if "TLSv1.3" in wanted else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if config.tls_prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if config.tls_session_caching:
        context.num_tickets = 1
    else:
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    if config.tls_ciphers:
        try:
            context.set_ciphers(config.tls_ciphers)
        except ssl.SSLError:
            raise CertificateError(f"tls-ciphers knows none of '{config.tls_ciphers:.100}'.") from None
    if config.tls_ciphersuites:
        setter = getattr(context, "set_ciphersuites", None)  # Python 3.15
        if setter is None:
            raise CertificateError("tls-ciphersuites cannot be chosen by this version of Python; leave it empty.")
        try:
            setter(config.tls_ciphersuites)
        except ssl.SSLError:
            raise CertificateError(f"tls-ciphersuites knows none of '{config.tls_ciphersuites:.100}'.") from None


def _trust_clients(context: SSLContext, config: Config) -> None:
    ssl = _ssl()
    if config.tls_auth_clients == "no":
        return
    file = _path(config, "tls_ca_cert_file") if config.tls_ca_cert_file else None
    folder = _path(config, "tls_ca_cert_dir") if config.tls_ca_cert_dir else None
    if file is not None:
        _readable(file, "tls-ca-cert-file")
    if folder is not None and not os.path.isdir(folder):
        raise CertificateError(f"tls-ca-cert-dir {folder} is no directory.")
    try:
        context.load_verify_locations(file, folder)
    except ssl.SSLError as error:
        reason = str(error.reason or error).replace("_", " ").lower()
        raise CertificateError(f"tls-ca-cert-file {file} holds no certificates: {reason}.") from None
    context.verify_mode = ssl.CERT_REQUIRED if config.tls_auth_clients == "yes" else ssl.CERT_OPTIONAL


def _readable(path: str, name: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise CertificateError(f"{name} {path} cannot be read: {error.strerror}.") from None


def _own_certificate(server: SSLContext, config: Config) -> dict[str, Any]:
    """The fields of the certificate, as a client sees them who trusts it: so whether one could connect at all."""
    ssl = _ssl()
    path = _path(config, "tls_cert_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(path)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server)
        _shake_hands(ssl, client, server.wrap_bio(to_server, to_client, server_side=True))
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"The certificate of tls-cert-file {path} is refused: {error.verify_message}.") from None
    except ssl.SSLError as error:
        reason = str(error.reason or error).replace("_", " ").lower()
        raise CertificateError(f"Nobody could connect with tls-cert-file {path} and these rules: {reason}.") from None
    return client.getpeercert() or {}


def _shake_hands(ssl: Any, client: SSLObject, server: SSLObject) -> None:
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def fingerprint(config: Config) -> tuple[object, ...]:
    """What the files are by their numbers and times, for noticing that they were replaced; contents are not read."""

    def of(path: str) -> object:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    return tuple(of(_path(config, name)) for name in _FILES if getattr(config, name))


def checked_in_a_child(config: Config) -> str:
    """What is wrong with the certificate, "" if nothing is: tried in a process of its own, with which what it read goes."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            os.write(writer, _trouble_with(config).encode()[:4000])
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(pid, 0)
    return text if status == 0 else text or "The certificate cannot be read: the process that tried to ended."


def _trouble_with(config: Config) -> str:
    try:
        if config.tls_port:
            loaded(config)
        if config.metrics_tls:
            loaded(config, for_clients=False)
        _warn_of_group(config)
    except CertificateError as error:
        return str(error)
    except Exception as error:
        return f"The certificate cannot be used: {type(error).__name__}: {error}."
    return ""


def say_expiry(expires: int, told: Iterable[int], log: Callable[..., None]) -> set[int]:
    """Logs a certificate that is about to expire, once 14 days before and once a day before; `told` are the days that were
    said already. Returns those to remember."""
    told = set(told)
    left = expires - time.time()
    due = {days for days in WARN_DAYS if left <= days * DAY_SECONDS}
    if due - told:
        hours = max(0, int(left // 3600))
        log("the TLS certificate expires in %s", f"{hours // 24} days" if hours >= 48 else f"{hours} hours")
    return told | due
