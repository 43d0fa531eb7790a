"""How nodes are reached by TLS (``rediss-cluster://``): who is trusted, and what this side shows of itself.

The context is made by hand, as that for clients is (`kache.cluster.certificates`): nothing of the environment has a say.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kache.backend.address import wants_tls
from kache.backend.conversation import NodeError

if TYPE_CHECKING:
    from ssl import SSLContext

    from kache.config.settings import Config

__all__ = ["context_for", "context_of"]


def context_of(config: Config) -> SSLContext | None:
    """For connections to the nodes of `config.backend`; None where they are not sealed. Raises NodeError, which names the
    file that cannot be used."""
    files = [
        name and os.path.join(config.dir, name)
        for name in (config.backend_tls_ca_file, config.backend_tls_cert_file, config.backend_tls_key_file)
    ]
    return context_for(config.backend, *files, verify=config.backend_tls_verify)


def context_for(url: str, ca_file: str, cert_file: str, key_file: str, *, verify: str = "name") -> SSLContext | None:
    """The same from paths, "" for none. Without a CA file the machine's own are trusted; `verify` is "name" (the certificate
    has the name or address by which the node was reached) or "ca" (it is signed by one that is trusted)."""
    if not wants_tls(url):
        return None
    try:
        import ssl
    except ImportError as error:
        raise NodeError(f"This Python cannot speak TLS: {error}.") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.check_hostname = verify == "name"
    if ca_file:
        _used(ssl, "backend-tls-ca-file", ca_file, lambda: context.load_verify_locations(ca_file))
    else:
        context.load_default_certs()
    if cert_file:
        _used(ssl, "backend-tls-cert-file", cert_file, lambda: _show(context, cert_file, key_file))
    return context


def _show(context: SSLContext, cert_file: str, key_file: str) -> None:
    # A callback in any case: without one OpenSSL would ask a person at the terminal.
    context.load_cert_chain(cert_file, key_file or None, lambda: "")


def _used(ssl: Any, setting: str, path: str, load: Any) -> None:
    try:
        load()
    except ssl.SSLError as error:
        reason = str(error.reason or error).replace("_", " ").lower()
        raise NodeError(f"{setting} {path} cannot be used: {reason}") from None
    except OSError as error:
        raise NodeError(f"{setting} {path} cannot be read: {error.strerror or error}") from None
