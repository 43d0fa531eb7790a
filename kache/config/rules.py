"""What no setting can say of itself alone: which of them go together, and which of them want others.

All of it is asked of a whole `Config`, whatever made it, and refused in one sentence.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from kache.backend.address import AddressError, nodes_of
from kache.config.settings import DEFAULTS, TLS_PROTOCOLS, Config, ConfigError, shortened

__all__ = ["OF_THE_NODES", "check_backend", "check_together", "check_users", "exposed_hosts"]

OF_THE_NODES = (
    "maxmemory", "maxmemory-policy", "maxmemory-samples", "appendonly", "appendfsync", "save", "shards",
    "notify-keyspace-events", "modules",
)  # fmt: skip
"""Settings of shards, of which a backend has none: the data lies in its nodes."""


def check_backend(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for an address that is none, and for what only shards could do."""
    try:
        nodes_of(values["backend"])
    except AddressError as error:
        raise ConfigError(f"backend {error}.", "backend", str(error)) from None
    for name in OF_THE_NODES:
        if name in values and values[name] != DEFAULTS.setting(name):
            raise ConfigError(
                f"{name} cannot be set together with backend: there are no shards then, and what belongs to data is set on "
                "the nodes.",
                name,
            )


def check_users(config: Config) -> None:
    """There is one place where users are, and one where the password of the default user is; raises ConfigError."""
    if config.aclfile and config.users:
        raise ConfigError("aclfile and [users] are both set; where are the users?", "aclfile")
    if config.requirepass and (config.aclfile or "default" in config.users):
        where = f"the file {config.aclfile}" if config.aclfile else "[users]"
        raise ConfigError(
            f"requirepass is a password of the user default, who is in {where}: give it the rule '>PASSWORD' there instead.",
            "requirepass",
        )


def check_together(config: Config) -> None:
    """What no setting can say of itself alone; raises ConfigError."""
    exposed = exposed_hosts(config)
    known = config.requirepass or config.aclfile or "default" in config.users
    if config.protected_mode and not known and exposed:
        raise ConfigError(
            f"Listening on {', '.join(exposed)} without a password is refused, since whoever reaches the port owns the "
            "data: set requirepass (KACHE_REQUIREPASS), or say protected-mode no.",
            "protected-mode",
        )
    if config.backend and config.maxmemory_clients < 0:
        raise ConfigError(
            f"maxmemory-clients {-config.maxmemory_clients}% is a part of maxmemory, which belongs to the backend's nodes: give "
            "it as a size.",
            "maxmemory-clients",
            "argument must be a size, since maxmemory belongs to the nodes",
        )
    _check_tls(config)
    _check_metrics(config)
    for low, high in (
        ("link-soft-commands", "link-hard-commands"),
        ("link-soft-bytes", "link-hard-bytes"),
    ):
        if config.setting(low) > config.setting(high):
            raise ConfigError(
                f"{low} ({config.setting(low)}) must not be larger than {high} ({config.setting(high)}).", low
            )


def exposed_hosts(config: Config) -> list[str]:
    """The addresses of `bind` that others than this machine may reach."""
    return [host for host in config.bind if not _is_loopback(host)]


def _check_tls(config: Config) -> None:
    wanting = "tls-port" if config.tls_port else "metrics-tls" if config.metrics_tls else ""
    for name in ("tls-cert-file", "tls-key-file"):
        if wanting and not config.setting(name):
            raise ConfigError(f"{wanting} needs a certificate and its key: {name} is not set.", name)
    if config.tls_port and config.tls_auth_clients != "no" and not (config.tls_ca_cert_file or config.tls_ca_cert_dir):
        raise ConfigError(
            f"tls-auth-clients {config.tls_auth_clients} needs the CA of the clients' certificates: set tls-ca-cert-file or "
            "tls-ca-cert-dir, or say tls-auth-clients no.",
            "tls-auth-clients",
        )
    if config.tls_port and config.tls_port == config.port:
        raise ConfigError(f"port and tls-port are both {config.port}; one port cannot speak both.", "tls-port")
    for word in config.tls_protocols.replace('"', "").split():
        if word not in TLS_PROTOCOLS:
            raise ConfigError(
                f"tls-protocols can be {' and '.join(TLS_PROTOCOLS)}, not '{shortened(word)}'.", "tls-protocols"
            )


def _check_metrics(config: Config) -> None:
    exposed = [host for host in config.metrics_bind if not _is_loopback(host)]
    known = config.requirepass or config.aclfile or "default" in config.users
    if not (config.metrics_port and exposed) or config.metrics_insecure or (config.metrics_tls and known):
        return
    missing = " and ".join(([] if config.metrics_tls else ["TLS"]) + ([] if known else ["a password"]))
    raise ConfigError(
        f"Listening for metrics on {', '.join(exposed)} without {missing} is refused: whoever is on the way sees figures, and "
        "passwords and keys of the console. Set metrics-tls and requirepass, or say metrics-insecure yes.",
        "metrics-bind",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name may lead anywhere
