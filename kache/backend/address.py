"""``redis-cluster://host:port,host:port``: where the nodes are that are asked first; ``rediss-cluster://`` by TLS. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_PORT", "SCHEME", "TLS_SCHEME", "AddressError", "format_node", "nodes_of", "split_node", "wants_tls"]

SCHEME: Final = "redis-cluster://"
TLS_SCHEME: Final = "rediss-cluster://"
DEFAULT_PORT: Final = 6379

Node = tuple[str, int]


class AddressError(ValueError):
    """Not an address of a cluster; the text ends a sentence that begins with the setting's name."""


def nodes_of(url: str) -> list[Node]:
    """The (host, port) of every node that the address names. Raises AddressError."""
    scheme = TLS_SCHEME if wants_tls(url) else SCHEME
    if not url.startswith(scheme):
        raise AddressError(f"must be {SCHEME}host:port,host:port,… (or {TLS_SCHEME}… for TLS)")
    rest = url[len(scheme) :]
    if "@" in rest:
        raise AddressError("must not hold a password: say it in KACHE_BACKEND_PASSWORD or backend-password-file")
    return [split_node(part) for part in rest.rstrip("/").split(",")]


def wants_tls(url: str) -> bool:
    """Whether the nodes are reached by TLS."""
    return url.startswith(TLS_SCHEME)


def split_node(text: str) -> Node:
    """``host:port``, ``host``, ``[::1]:port``, ``::1`` followed by a port as servers write it. Raises AddressError."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, colon, port = text, "", ""
    elif not colon:
        host, port = text, ""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or any(char in host for char in "/ ?#[]"):
        raise AddressError(f"must name nodes as host:port, not '{text[:100]}'")
    if not port and not colon:
        return host, DEFAULT_PORT
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise AddressError(f"must name nodes as host:port with a port up to 65535, not '{text[:100]}'")
    return host, int(port)


def format_node(node: Node) -> str:
    """``host:port``, ``[::1]:port``"""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
