"""The configuration: every setting of a cluster, once, with its unit, its reason and its default.

`Config` is immutable; the supervisor owns the effective one and gives it to every child (`kache.cluster.control`).
Command-line options win over ``KACHE_…`` variables, those over a TOML file, that over the defaults. A wrong
value is refused in one sentence that names the value and the place it came from. The only I/O here is reading
that file. Most of its length is the table of settings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

import msgspec

from kache.backend.address import AddressError, nodes_of
from kache.config.client_limits import DEFAULT_LIMITS, Limit
from kache.config.foreign import ALIASES, FOREIGN
from kache.config.kinds import (
    ADDRESSES,
    COUNT,
    DAY,
    EVENTS,
    FILES,
    LIMITS,
    MICROSECONDS,
    MILLISECONDS,
    MINUTES,
    MODE,
    SAVE_POINTS,
    SECONDS,
    SIZE,
    TEXT,
    WORD,
    YES_NO,
    Setting,
    SettingError,
    nearest,
)
from kache.errors import KacheError

__all__ = [
    "MOST_ROUTERS",
    "SETTINGS",
    "Config",
    "ConfigError",
    "changed",
    "exposed_hosts",
    "is_known",
    "is_secret",
    "load",
    "redis_settings",
    "secret_variables",
]

KIB = 1024
MIB = 1024 * KIB
MOST_ROUTERS = 16
TLS_PROTOCOLS = ("TLSv1.2", "TLSv1.3")
"""Older versions are broken."""
PACKED = "Up to how many {} a {} is packed: kept in one block, searched from its start. Holds for what is written from then on."


class ConfigError(KacheError):
    """A setting that cannot be taken; `setting` is its name where there is one, `reason` the cause alone."""

    def __init__(self, message: str, setting: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.setting = setting
        self.reason = reason or message


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The effective settings of a cluster. Sizes are bytes; the unit of a time is the end of its name."""

    # The shape of the cluster
    shards: Annotated[int, Setting(COUNT, "Shard processes; 0 means one per usable core.", low=0, high=256)] = 0
    routers: Annotated[
        int,
        Setting(
            COUNT,
            "Router processes sharing the port; 0 means one per two usable cores, but no more than shards.",
            low=0,
            high=MOST_ROUTERS,
        ),
    ] = 0
    port: Annotated[
        int,
        Setting(
            COUNT,
            "TCP port of both protocols; 0 takes a free one, or with tls-port none at all.",
            low=0,
            high=65535,
        ),
    ] = 7379
    bind: Annotated[
        tuple[str, ...],
        Setting(ADDRESSES, "Addresses to listen on; only loopback by default, since a cache often has no password."),
    ] = ("127.0.0.1",)
    unixsocket: Annotated[
        str,
        Setting(TEXT, "Path of a Unix socket for clients, beside the port; a relative one lies in dir; empty: none."),
    ] = ""
    unixsocketperm: Annotated[
        int, Setting(MODE, "Who may use that socket, as the octal mode of the file.", low=0, high=0o777)
    ] = 0o700
    metrics_port: Annotated[
        int,
        Setting(
            COUNT,
            "TCP port of /metrics for Prometheus, /healthz, /readyz and the web console; 0: none.",
            low=0,
            high=65535,
        ),
    ] = 0
    metrics_bind: Annotated[
        tuple[str, ...],
        Setting(
            ADDRESSES,
            "Addresses that metrics-port listens on. /metrics needs no password: figures, no keys, no values.",
        ),
    ] = ("127.0.0.1",)
    console_writes: Annotated[
        bool,
        Setting(
            YES_NO,
            "Whether the web console of metrics-port may change and delete keys, behind the password where one is set.",
            live=True,
        ),
    ] = False
    unixsocketgroup: Annotated[
        str,
        Setting(TEXT, "Group that the file of that socket belongs to, by name or number; empty: that of the process."),
    ] = ""
    metrics_tls: Annotated[
        bool,
        Setting(YES_NO, "Whether metrics-port speaks TLS, with tls-cert-file and tls-key-file."),
    ] = False
    metrics_insecure: Annotated[
        bool,
        Setting(
            YES_NO,
            "Listen for metrics beyond this machine without metrics-tls or without a password: figures travel in the clear, and "
            "so do passwords and keys that the console shows.",
        ),
    ] = False
    cluster_announce_ip: Annotated[
        str,
        Setting(
            TEXT,
            "Address that CLUSTER tells clients to connect to; empty: the one they connected to, which is wrong for "
            "clients outside a container.",
            live=True,
        ),
    ] = ""
    cluster_announce_port: Annotated[
        int,
        Setting(COUNT, "Port that CLUSTER tells clients; 0: the one they connected to.", live=True, low=0, high=65535),
    ] = 0
    dir: Annotated[
        str, Setting(TEXT, "Directory of the data, where it is kept (appendonly, save); a relative logfile lies here.")
    ] = "."
    modules: Annotated[
        tuple[str, ...],
        Setting(
            FILES,
            "Files of commands in Python that are loaded at the start (docs/python-commands.md); a relative one lies in dir. "
            "`kache module` changes what a running cluster has.",
        ),
    ] = ()
    module_time_limit_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a command in Python may take before it is ended, if it has changed nothing, since its shard does nothing "
            "else meanwhile; 0: as long as it likes.",
            live=True,
        ),
    ] = 100
    databases: Annotated[
        int, Setting(COUNT, "Numbered databases (SELECT) in every shard.", low=16, high=16, fixed=True)
    ] = 16

    # Memory
    maxmemory: Annotated[
        int, Setting(SIZE, "Memory for the data of all shards together; 0 means no limit.", live=True)
    ] = 0
    maxmemory_policy: Annotated[
        str,
        Setting(
            WORD,
            "What is evicted when memory is full. The default suits a cache; that of Redis is noeviction.",
            live=True,
            choices=(
                "noeviction",
                "allkeys-lru",
                "volatile-lru",
                "allkeys-lfu",
                "volatile-lfu",
                "allkeys-s3fifo",
                "volatile-s3fifo",
                "allkeys-auto",
                "volatile-auto",
                "allkeys-random",
                "volatile-random",
                "volatile-ttl",
            ),
        ),
    ] = "allkeys-lru"
    maxmemory_samples: Annotated[
        int, Setting(COUNT, "Keys looked at to choose one, for the policies that sample.", live=True, low=1, high=64)
    ] = 5
    miniature_simulations: Annotated[
        bool,
        Setting(
            YES_NO,
            "Whether every shard simulates other policies and sizes of memory on a sample of its keys, for kache advise: "
            "while memory is nearly full and a policy evicts, otherwise for an hour after kache advise asked. Takes up to a "
            "megabyte a shard; the policies auto need it and have it anyway.",
            live=True,
        ),
    ] = True
    maxmemory_clients: Annotated[
        int,
        Setting(
            SIZE,
            "Memory that all clients may cost over all routers: unread replies, unfinished requests. As it fills, the largest "
            "are not read; beyond it they are closed. At least 1mb; 0: an eighth of the machine's, at least 256mb.",
            live=True,
        ),
    ] = 0
    lfu_log_factor: Annotated[
        int, Setting(COUNT, "How slowly the frequency counter grows; as in Redis.", live=True, low=0, high=1000000)
    ] = 10
    lfu_decay_time: Annotated[
        int, Setting(MINUTES, "Minutes until an idle key's frequency counter drops by one.", live=True)
    ] = 1

    # Durability: a cache by default; docs/durability.md says what each of these promises
    appendonly: Annotated[
        bool,
        Setting(YES_NO, "Whether every write is logged in dir before it is answered.", live=True),
    ] = False
    appendfsync: Annotated[
        str,
        Setting(
            WORD,
            "When the log is synced: always before the reply, once a second, or when the system does (no).",
            live=True,
            choices=("always", "everysec", "no"),
        ),
    ] = "everysec"
    save: Annotated[
        str,
        Setting(
            SAVE_POINTS,
            "When a snapshot is taken: pairs of seconds and changes, all shards together, such as 900 1 300 10; then also "
            "at a clean shutdown. Empty: never.",
            live=True,
        ),
    ] = ""
    auto_aof_rewrite_percentage: Annotated[
        int,
        Setting(
            COUNT,
            "Growth of a shard's log, in percent of its base, at which the base is made anew; 0: never.",
            live=True,
        ),
    ] = 100
    auto_aof_rewrite_min_size: Annotated[
        int, Setting(SIZE, "Log of a shard that is left alone however small its base.", live=True)
    ] = 64 * MIB
    aof_load_truncated: Annotated[
        bool,
        Setting(
            YES_NO,
            "Whether a log whose end a crash has torn is loaded up to there, with a warning; no: it is refused.",
            live=True,
        ),
    ] = True
    log_lag_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "With everysec: age of what is not synced yet at which writes wait for the disk, so that a power cut never costs "
            "more.",
            live=True,
            low=1000,
            high=600000,
        ),
    ] = 2000
    log_queue_bytes: Annotated[
        int,
        Setting(
            SIZE, "Effects of a shard that are not written yet at which writes wait for the disk.", live=True, low=MIB
        ),
    ] = 64 * MIB
    log_stall_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "Time of one write or sync after which the disk counts as stalled: writes are refused (MISCONF), reads go on.",
            live=True,
            low=100,
            high=600000,
        ),
    ] = 5000
    enable_debug_command: Annotated[
        str,
        Setting(
            WORD,
            "Who may load the data again by DEBUG (RELOAD, LOADAOF), for tests: nobody, clients on this machine, everybody.",
            choices=("no", "local", "yes"),
        ),
    ] = "no"

    # Clients
    requirepass_file: Annotated[
        str,
        Setting(TEXT, "File whose first line is requirepass; for secrets of systemd, Docker, Kubernetes. Empty: none."),
    ] = ""
    requirepass: Annotated[
        str, Setting(TEXT, "Password that clients must give; empty asks for none.", live=True, secret=True)
    ] = ""
    aclfile: Annotated[
        str,
        Setting(
            TEXT,
            "File of users and their rights, as ACL SAVE writes it; only its owner may read it. Empty: they are in [users] of the "
            "configuration file.",
        ),
    ] = ""
    acllog_max_len: Annotated[int, Setting(COUNT, "Entries of ACL LOG, for each router.", live=True, high=100000)] = 128
    protected_mode: Annotated[
        bool,
        Setting(
            YES_NO,
            "Refuse to listen beyond this machine without a password: whoever can reach the port owns the data.",
            live=True,
        ),
    ] = True
    auth_max_failures: Annotated[
        int, Setting(COUNT, "Wrong passwords after which a connection is closed.", live=True, low=1)
    ] = 5
    maxclients: Annotated[
        int,
        Setting(
            COUNT,
            "Connections the cluster accepts; any more are refused with an error. Lowered to what the limit of open files allows.",
            live=True,
            low=1,
            high=1000000,
        ),
    ] = 10000
    maxclients_per_address: Annotated[
        int,
        Setting(
            COUNT,
            "Connections accepted from one address, of IPv6 from one /64; 0: no limit. Unix sockets have none.",
            live=True,
            high=1000000,
        ),
    ] = 0
    timeout: Annotated[
        int, Setting(SECONDS, "Seconds after which an idle client is closed; 0 means never.", live=True)
    ] = 0
    preauth_timeout_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "Time to send a whole first command and, with a password set, to authenticate: reaps half-open clients.",
            live=True,
            low=10,
        ),
    ] = 10000
    tcp_keepalive: Annotated[
        int, Setting(SECONDS, "Seconds between TCP keep-alive probes; 0 sends none.", live=True, low=0, high=32767)
    ] = 300
    tcp_backlog: Annotated[int, Setting(COUNT, "Connections that may wait to be accepted.", low=1, high=65535)] = 511
    request_timeout_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a command may wait before its shard begins with it; then its client is told TIMEOUT.",
            live=True,
            low=10,
        ),
    ] = 5000
    command_timeout_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a client waits for a command that its shard is at work on; longer than request-timeout-ms.",
            live=True,
            low=10,
            # A day: whoever waits longer than that has been forgotten.
            high=86_400_000,
        ),
    ] = 60_000
    drain_seconds: Annotated[
        int,
        Setting(SECONDS, "How long a stop waits for commands in flight; Docker kills after 10.", high=DAY),
    ] = 5

    # TLS: docs/tls.md
    tls_port: Annotated[
        int,
        Setting(
            COUNT,
            "TCP port that speaks TLS, on the same addresses; 0: none. With it, port 0 turns the plain port off.",
            low=0,
            high=65535,
        ),
    ] = 0
    tls_cert_file: Annotated[
        str, Setting(TEXT, "PEM file of the server's certificate, and of those between it and the CA; relative to dir.")
    ] = ""
    tls_key_file: Annotated[str, Setting(TEXT, "PEM file of its private key, readable by nobody else.")] = ""
    tls_key_file_pass_file: Annotated[
        str, Setting(TEXT, "File whose first line is tls-key-file-pass; for secrets of systemd, Docker, Kubernetes.")
    ] = ""
    tls_key_file_pass: Annotated[str, Setting(TEXT, "Passphrase of that key; empty: it has none.", secret=True)] = ""
    tls_ca_cert_file: Annotated[
        str, Setting(TEXT, "PEM file of the CA certificates that clients' certificates are held against.")
    ] = ""
    tls_ca_cert_dir: Annotated[
        str, Setting(TEXT, "Directory of such certificates, named by their hashes (openssl rehash).")
    ] = ""
    tls_auth_clients: Annotated[
        str,
        Setting(
            WORD,
            "Whether clients must show a certificate of that CA: yes, as in Redis, no, or only if they have one (optional).",
            live=True,
            choices=("yes", "no", "optional"),
        ),
    ] = "yes"
    tls_auth_clients_user: Annotated[
        str,
        Setting(
            WORD,
            "Which name in a client's certificate is that of the user it is logged in as: its common name, a URI; off: none.",
            live=True,
            choices=("off", "cn", "uri"),
        ),
    ] = "off"
    tls_protocols: Annotated[
        str, Setting(TEXT, "Versions that are spoken, of TLSv1.2 and TLSv1.3; empty: both.", live=True)
    ] = ""
    tls_ciphers: Annotated[
        str, Setting(TEXT, "Ciphers of TLSv1.2, in OpenSSL's form; empty: OpenSSL's choice.", live=True)
    ] = ""
    tls_ciphersuites: Annotated[
        str,
        Setting(TEXT, "Ciphers of TLSv1.3, where this Python can choose them; empty: OpenSSL's choice.", live=True),
    ] = ""
    tls_prefer_server_ciphers: Annotated[
        bool, Setting(YES_NO, "Whether the server's order of ciphers goes before the client's.", live=True)
    ] = False
    tls_session_caching: Annotated[
        bool,
        Setting(
            YES_NO,
            "Whether clients get tickets with which they come back without a full handshake, to the same router.",
            live=True,
        ),
    ] = True
    tls_auto_reload_interval: Annotated[
        int,
        Setting(
            SECONDS,
            "Seconds between two looks at whether the files of the certificate have changed; 0: only when told to.",
            live=True,
            low=0,
            high=DAY,
        ),
    ] = 0
    tls_handshake_timeout_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "Time for a TLS handshake; a connection that has not finished it is closed.",
            live=True,
            low=100,
            high=600000,
        ),
    ] = 3000

    # Limits on what a client may send
    max_frame_bytes: Annotated[
        int,
        Setting(
            SIZE,
            "Largest binary request; at most 143 MiB, so that its fourth byte tells it from text.",
            live=True,
            low=1 * KIB,
            high=143 * MIB,
        ),
    ] = 64 * MIB
    max_strings: Annotated[
        int,
        Setting(
            COUNT,
            "Strings in one request, in either protocol; as in Redis only its bytes are limited (client-query-buffer-limit).",
            live=True,
            low=16,
            high=2**31 - 1,
        ),
    ] = 2**31 - 1
    proto_max_bulk_len: Annotated[
        int, Setting(SIZE, "Largest string in a RESP request.", live=True, low=MIB, high=2048 * MIB - 1)
    ] = 512 * MIB
    client_query_buffer_limit: Annotated[
        int, Setting(SIZE, "Unparsed input of one client at which it is closed.", live=True, low=MIB, high=4095 * MIB)
    ] = 1024 * MIB
    preauth_max_bytes: Annotated[
        int,
        Setting(
            SIZE,
            "Largest request of a client that has yet to authenticate: a stranger must not make the router grow.",
            live=True,
            low=1 * KIB,
            high=MIB,
        ),
    ] = 16 * KIB
    preauth_max_commands: Annotated[
        int,
        Setting(COUNT, "Commands a client may send before it authenticates; then it is closed.", live=True, low=4),
    ] = 128

    # A Redis Cluster behind the routers, instead of shards
    backend: Annotated[
        str,
        Setting(
            TEXT,
            "A Redis or Valkey Cluster that the routers stand in front of, redis-cluster://host:port,host:port, or "
            "rediss-cluster:// by TLS; there are no shards then. Empty: none.",
        ),
    ] = ""
    backend_user: Annotated[
        str, Setting(TEXT, "User of the nodes that routers authenticate as; empty: the password alone.")
    ] = ""
    backend_password_file: Annotated[
        str,
        Setting(TEXT, "File whose first line is the password of the nodes; or KACHE_BACKEND_PASSWORD. Empty: none."),
    ] = ""
    backend_password: Annotated[
        str,
        Setting(TEXT, "Password of the nodes, from KACHE_BACKEND_PASSWORD or backend-password-file.", secret=True),
    ] = ""
    backend_connections: Annotated[
        int,
        Setting(
            COUNT,
            "Connections of a router to a node, for each of RESP2 and RESP3; a client keeps to the same on every node.",
            low=1,
            high=8,
        ),
    ] = 1
    backend_tls_ca_file: Annotated[
        str,
        Setting(
            TEXT,
            "CA that the certificates of the nodes are signed by, for rediss-cluster://. Empty: those that this machine trusts.",
        ),
    ] = ""
    backend_tls_cert_file: Annotated[
        str, Setting(TEXT, "Certificate that routers show to the nodes, if these want one.")
    ] = ""
    backend_tls_key_file: Annotated[
        str, Setting(TEXT, "Its key, without a passphrase. Empty: it is in the same file.")
    ] = ""
    backend_tls_verify: Annotated[
        str,
        Setting(
            WORD,
            "What a certificate of a node must have: name, the name or address by which the node is reached; ca, a signature "
            "of the CA and nothing else, for nodes that name one another by addresses.",
            choices=("name", "ca"),
        ),
    ] = "name"
    backend_read_from: Annotated[
        str,
        Setting(
            WORD,
            "Who answers commands that only read: master; replica, if one answers; any, which spreads them over both. Replicas "
            "lag, so a client may not see what it has written itself.",
            choices=("master", "replica", "any"),
        ),
    ] = "master"
    backend_transactions: Annotated[
        str,
        Setting(
            WORD,
            "MULTI over several slots of the backend: strict refuses it (CROSSSLOT), split makes a transaction of each "
            "slot's commands and promises nothing over slots.",
            live=True,
            choices=("strict", "split"),
        ),
    ] = "strict"
    backend_wait_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a command that no node has executed waits for one that can, during a failover or while slots move; "
            "then the error says that nothing was executed. 0: not at all.",
            live=True,
        ),
    ] = 5000
    backend_silence_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a node may say nothing while it owes an answer before its connection is given up.",
            live=True,
            low=100,
        ),
    ] = 2000

    # Back-pressure between clients, router and shards
    max_inflight_per_client: Annotated[
        int,
        Setting(COUNT, "Commands of one client in flight before it is no longer read.", live=True, low=1, high=MIB),
    ] = 4096
    max_inflight_bytes_per_client: Annotated[
        int, Setting(SIZE, "The same in bytes of requests.", live=True, low=64 * KIB)
    ] = 16 * MIB
    link_soft_commands: Annotated[
        int,
        Setting(COUNT, "Commands in flight to one shard above which the clients using it wait.", live=True, low=64),
    ] = 65536
    link_hard_commands: Annotated[
        int, Setting(COUNT, "Commands in flight to one shard above which TRYAGAIN is answered.", live=True, low=64)
    ] = 131072
    link_soft_bytes: Annotated[
        int, Setting(SIZE, "The same as link-soft-commands, in bytes of requests.", live=True, low=64 * KIB)
    ] = 16 * MIB
    link_hard_bytes: Annotated[
        int,
        Setting(
            SIZE,
            "The same as link-hard-commands, in bytes. Bounds what a stopped shard costs the router; a single larger "
            "command passes when the link is empty.",
            live=True,
            low=64 * KIB,
        ),
    ] = 32 * MIB
    notify_keyspace_events: Annotated[
        str,
        Setting(
            EVENTS,
            "Events of keys that are published: K on channels of the key, E on channels of the event, and their classes; "
            "A for all but n (new keys) and m (keys missed). Each costs the shard a message where somebody listens.",
            live=True,
        ),
    ] = ""
    tracking_table_max_keys: Annotated[
        int,
        Setting(
            COUNT,
            "Keys that each shard remembers for CLIENT TRACKING; beyond, one is forgotten and its clients are told that it has "
            "changed. 0: no limit.",
            live=True,
        ),
    ] = 1_000_000
    client_output_buffer_limit: Annotated[
        tuple[Limit, ...],
        Setting(
            LIMITS,
            "Unread replies at which a client is closed: class, hard limit, soft limit, seconds above the soft one. "
            "Clients that are sent messages out of band are of class pubsub.",
            live=True,
        ),
    ] = DEFAULT_LIMITS
    output_soft_seconds: Annotated[
        int,
        Setting(
            SECONDS,
            "How long a costly client may neither take nor send anything while maxmemory-clients is half full.",
            live=True,
            low=1,
        ),
    ] = 60
    linger_bytes: Annotated[
        int,
        Setting(SIZE, "Input discarded before a close, so that the last error is not lost to a reset.", live=True),
    ] = 4 * MIB
    linger_ms: Annotated[
        int, Setting(MILLISECONDS, "How long such a close may take.", live=True, low=0, high=60000)
    ] = 1000

    # Transactions over several shards
    transaction_hold_ms: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "How long a transaction may keep others out of its slots before it has begun: what a router that stops in the "
            "middle costs them.",
            live=True,
            low=100,
            high=60000,
        ),
    ] = 2000
    parked_commands: Annotated[
        int,
        Setting(
            COUNT,
            "Commands that may wait in one shard for transactions to end; beyond it TRYAGAIN is answered.",
            live=True,
            low=1,
            high=MIB,
        ),
    ] = 10000
    parked_bytes: Annotated[int, Setting(SIZE, "The same in bytes of requests.", live=True, low=64 * KIB)] = 64 * MIB

    # Scripts
    busy_reply_threshold: Annotated[
        int,
        Setting(
            MILLISECONDS,
            "For how long a script may keep its shard before commands to that shard are answered BUSY; 0: never.",
            live=True,
            low=0,
            high=3600000,
        ),
    ] = 5000
    lua_memory_limit: Annotated[
        int,
        Setting(
            SIZE,
            "What the scripts of one shard may use while they run; a script that needs more ends with an error.",
            live=True,
            low=MIB,
            high=4 * 1024 * MIB,
        ),
    ] = 64 * MIB
    script_borrow_bytes: Annotated[
        int,
        Setting(
            SIZE,
            "Values of other shards that one script may have at hand; with more it is refused before it runs.",
            live=True,
            low=64 * KIB,
            high=1024 * MIB,
        ),
    ] = 64 * MIB

    # A shard's tick
    tick_us: Annotated[
        int,
        Setting(
            MICROSECONDS,
            "Time after which a tick ends and the other links have their turn; more than a second would be a stall.",
            live=True,
            low=100,
            high=1000000,
        ),
    ] = 2000
    tick_reply_bytes: Annotated[int, Setting(SIZE, "Reply bytes after which a tick ends.", live=True, low=16 * KIB)] = (
        4 * MIB
    )
    link_unsent_bytes: Annotated[
        int, Setting(SIZE, "Unsent replies at which a shard stops reading a link.", live=True, low=64 * KIB)
    ] = 16 * MIB
    hz: Annotated[int, Setting(COUNT, "Rounds of background work per second.", live=True, low=1, high=500)] = 10
    active_expire_us: Annotated[
        int,
        Setting(MICROSECONDS, "Longest slice of removing expired keys between ticks.", live=True, low=50, high=20000),
    ] = 4000

    # What is reported
    loglevel: Annotated[
        str, Setting(WORD, "Least level logged.", live=True, choices=("debug", "verbose", "notice", "warning"))
    ] = "notice"
    logformat: Annotated[
        str, Setting(WORD, "Form of a log line; auto: text on a terminal, else JSON.", choices=("auto", "text", "json"))
    ] = "auto"
    logfile: Annotated[str, Setting(TEXT, "File to log to; empty logs to standard error.")] = ""
    core_dumps: Annotated[
        bool,
        Setting(YES_NO, "Whether a crash may write a process' memory to disk: it holds the data and the password."),
    ] = False
    slowlog_log_slower_than: Annotated[
        int,
        Setting(MICROSECONDS, "Execution time at which a command enters the slow log; -1: none.", live=True, low=-1),
    ] = 10000
    slowlog_max_len: Annotated[
        int, Setting(COUNT, "Entries of the slow log of the cluster.", live=True, low=0, high=100000)
    ] = 128

    # How processes run
    start_method: Annotated[
        str,
        Setting(
            WORD, "How children start: fork where it is safe (Linux), else exec.", choices=("auto", "fork", "exec")
        ),
    ] = "auto"
    reactor: Annotated[
        str,
        Setting(
            WORD, "Who waits for sockets: one epoll inside the loop, or the loop.", choices=("auto", "epoll", "loop")
        ),
    ] = "auto"
    pin_cores: Annotated[bool, Setting(YES_NO, "Tie each process to one core.")] = False
    scheduling: Annotated[
        str,
        Setting(
            WORD,
            "How Linux schedules routers and shards: batch saves switches between them; normal answers sooner where "
            "other programs keep every core busy.",
            choices=("batch", "normal"),
        ),
    ] = "batch"
    restart_backoff_ms: Annotated[
        int, Setting(MILLISECONDS, "Longest wait before a crashing child is started again.", live=True, low=100)
    ] = 10000
    unresponsive_seconds: Annotated[
        int,
        Setting(
            SECONDS,
            "How long a router or shard may give no sign of life until it counts as unresponsive.",
            live=True,
            low=1,
            high=DAY,
        ),
    ] = 10
    restart_unresponsive: Annotated[
        str,
        Setting(
            WORD,
            "Which unresponsive processes are killed and started again. A router loses only its connections, but a "
            "shard's data would go with it while there is no log to read it back from.",
            live=True,
            choices=("routers", "all", "no"),
        ),
    ] = "routers"

    # Small collections
    hash_max_listpack_entries: Annotated[int, Setting(COUNT, PACKED.format("fields", "hash"), live=True)] = 512
    hash_max_listpack_value: Annotated[
        int, Setting(SIZE, PACKED.format("bytes of a field or value", "hash"), live=True)
    ] = 64
    list_max_listpack_size: Annotated[
        int,
        Setting(COUNT, PACKED.format("elements (-1 to -5: 4, 8, 16, 32, 64 KiB)", "list"), live=True, low=-5),
    ] = -2
    list_compress_depth: Annotated[
        int, Setting(COUNT, "Accepted because Redis has it, but without effect: no list is compressed here.", live=True)
    ] = 0
    set_max_intset_entries: Annotated[int, Setting(COUNT, PACKED.format("integers", "set of integers"), live=True)] = (
        512
    )
    set_max_listpack_entries: Annotated[int, Setting(COUNT, PACKED.format("members", "set"), live=True)] = 128
    set_max_listpack_value: Annotated[int, Setting(SIZE, PACKED.format("bytes of a member", "set"), live=True)] = 64
    stream_node_max_bytes: Annotated[
        int,
        Setting(
            SIZE, "Bytes of one chunk of a stream, which is trimmed and sought as a whole; 0: without limit.", live=True
        ),
    ] = 4096
    stream_node_max_entries: Annotated[
        int, Setting(COUNT, "Entries of one chunk of a stream, deleted ones included; 0: without limit.", live=True)
    ] = 100
    zset_max_listpack_entries: Annotated[int, Setting(COUNT, PACKED.format("members", "sorted set"), live=True)] = 128
    zset_max_listpack_value: Annotated[
        int, Setting(SIZE, PACKED.format("bytes of a member", "sorted set"), live=True)
    ] = 64

    users: dict[str, str] = {}
    """Not a setting: ``[users]`` of the configuration file, rules by name."""
    foreign: dict[str, str] = {}
    """Not a setting: what clients have set of the parameters that mean nothing here (`kache.config.foreign`)."""

    def setting(self, name: str) -> Any:
        """The value of the setting `name` (``maxmemory-policy``)."""
        return getattr(self, name.replace("-", "_"))


def _settings() -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for field, hint in get_type_hints(Config, include_extras=True).items():
        if field not in ("foreign", "users"):
            found[field.replace("_", "-")] = next(extra for extra in hint.__metadata__ if isinstance(extra, Setting))
    return found


SETTINGS: Mapping[str, Setting] = _settings()
"""Every setting by its name, in the order of `Config`."""

_FROM_FILES = ("requirepass", "tls-key-file-pass", "backend-password")
"""Secrets that may be the first line of a file, which the setting of the same name and -file says."""
_BY_REDIS_NAME = {setting.redis or name: name for name, setting in SETTINGS.items()} | dict(ALIASES)
_DEFAULTS = Config()


def redis_settings(config: Config) -> dict[str, str]:
    """What CONFIG GET may answer: the text of every setting by the name Redis clients use, secrets left out.

    They are not masked: tools that read all settings and write them back would store the mask.
    """
    shown = ((redis, name) for redis, name in _BY_REDIS_NAME.items() if not SETTINGS[name].secret)
    ours = {redis: SETTINGS[name].show(config.setting(name)) for redis, name in shown}
    return {name: each.value for name, each in FOREIGN.items()} | config.foreign | ours


def is_known(redis: str) -> bool:
    """Whether CONFIG SET knows a setting of that name."""
    return redis.lower() in _BY_REDIS_NAME or redis.lower() in FOREIGN


def is_secret(redis: str) -> bool:
    """Whether nobody may see what CONFIG SET is given for this name; so it is with names that nobody knows, which may be
    mistyped."""
    name = _BY_REDIS_NAME.get(redis.lower(), redis.lower())
    return SETTINGS[name].secret if name in SETTINGS else name not in FOREIGN or name == "masterauth"


def changed(config: Config, values: Mapping[str, str]) -> Config:
    """`config` with the texts of CONFIG SET taken in, all or none; raises ConfigError with `setting` and `reason`."""
    new: dict[str, Any] = {}
    foreign = dict(config.foreign)
    for redis, text in values.items():
        name = _BY_REDIS_NAME.get(redis.lower(), redis.lower())
        try:
            if name in SETTINGS:
                new |= _changed_setting(config, name, text)
            elif name in FOREIGN:
                foreign[name] = FOREIGN[name].taken(text)
            else:
                raise ConfigError(f"there is no setting '{_shortened(redis)}'", "", "unknown")
        except SettingError as error:
            shown = "a secret value" if name in SETTINGS and SETTINGS[name].secret else f"'{_shortened(text)}'"
            raise ConfigError(f"{name} {error}, not {shown}", redis.lower(), f"argument {error}") from None
    after = msgspec.structs.replace(config, **new, foreign=foreign)
    _check_together(after)
    return after


def _changed_setting(config: Config, name: str, text: str) -> dict[str, Any]:
    """The field that `text` changes, if it does. Raises ConfigError, and SettingError for what is no value."""
    setting = SETTINGS[name]
    if config.backend and name in _OF_THE_NODES and not setting.is_already(config.setting(name), text):
        raise ConfigError(
            f"{name} belongs to the data, which is that of the backend's nodes", name, "set it on the nodes"
        )
    if not setting.live:
        if setting.is_already(config.setting(name), text):
            # Clients and tools set what they need to be so; where it is so, nothing has to change.
            return {}
        only = setting.show(config.setting(name))
        reason = f"argument can only be '{only}' for now" if setting.fixed else "can't set immutable config"
        raise ConfigError(f"{name} cannot be changed while the cluster runs", name, reason)
    return {name.replace("-", "_"): setting.taken(config.setting(name), text)}


def load(options: Mapping[str, object], environ: Mapping[str, str], path: str | None = None) -> Config:
    """The effective configuration.

    `options` are those typed on the command line, by name of the field; None stands for one that was not given.
    `environ` is searched for ``KACHE_<NAME>``; `path` names a TOML file (``KACHE_CONFIG`` when None).
    """
    values: dict[str, Any] = {}
    path = path or environ.get("KACHE_CONFIG") or None
    if path is not None:
        values.update(_from_file(path))
    for name in SETTINGS:
        variable = _variable(name)
        if variable in environ:
            values[name] = _read(name, environ[variable], f"the variable {variable}")
    for field, raw in options.items():
        if raw is not None:
            name = field.replace("_", "-")
            values[name] = _read(name, raw, f"the option --{name}")
    for name in _FROM_FILES:
        if values.get(f"{name}-file"):
            values[name] = _secret_of(values, name)
    if values.get("backend"):
        _check_backend(values)
    config = msgspec.structs.replace(_DEFAULTS, **{name.replace("-", "_"): value for name, value in values.items()})
    _check_users(config)
    _check_together(config)
    return config


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables of `environ` that hold a secret setting."""
    return [name for name in map(_variable, (name for name in SETTINGS if SETTINGS[name].secret)) if name in environ]


def _variable(name: str) -> str:
    """``KACHE_MAXMEMORY_POLICY`` for maxmemory-policy"""
    return "KACHE_" + name.replace("-", "_").upper()


_OF_THE_NODES = (
    "maxmemory", "maxmemory-policy", "maxmemory-samples", "appendonly", "appendfsync", "save", "shards",
    "notify-keyspace-events", "modules",
)  # fmt: skip
"""Settings of shards, of which a backend has none: the data lies in its nodes."""


def _check_backend(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for an address that is none, and for what only shards could do."""
    try:
        nodes_of(values["backend"])
    except AddressError as error:
        raise ConfigError(f"backend {error}.", "backend", str(error)) from None
    for name in _OF_THE_NODES:
        if name in values and values[name] != _DEFAULTS.setting(name):
            raise ConfigError(
                f"{name} cannot be set together with backend: there are no shards then, and what belongs to data is set on "
                "the nodes.",
                name,
            )


def _secret_of(values: Mapping[str, Any], name: str) -> str:
    """The first line of requirepass-file, say; raises ConfigError when there is none, or another password."""
    source = f"{name}-file"
    path = values[source]
    if values.get(name):
        raise ConfigError(f"{name} and {source} are both set; which password is meant?", source)
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{source} {path} cannot be read: {reason}.", source) from None
    if not password:
        raise ConfigError(f"{source} {path} has no password in its first line.", source)
    return str(_read(name, password, f"the file {path}"))


def _read(name: str, raw: object, origin: str) -> Any:
    setting = SETTINGS[name]
    shown = "a secret value" if setting.secret else f"'{_shortened(_plain(raw))}'"
    try:
        value = setting.taken(_DEFAULTS.setting(name), raw)
    except SettingError as error:
        raise ConfigError(f"{name} {error}, not {shown} ({origin}).", name, str(error)) from None
    if setting.fixed and value != _DEFAULTS.setting(name):
        only = setting.show(_DEFAULTS.setting(name)) or "empty"
        raise ConfigError(f"{name} can only be {only} for now, not {shown} ({origin}).", name)
    return value


def _plain(raw: object) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return " ".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)


def _shortened(text: str) -> str:
    """A value in a sentence: whoever sent a megabyte knows the rest."""
    return text if len(text) <= 100 else f"{text[:100]}..."


def _from_file(path: str) -> dict[str, Any]:
    import tomllib  # only who has a file pays for it

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None
    values: dict[str, Any] = {}
    for key, raw in table.items():
        name = key.replace("_", "-")
        if name == "users":
            values[name] = _users_from_file(raw, path)
            continue
        if name not in SETTINGS:
            raise ConfigError(f"There is no setting '{key}' ({path}).{nearest(key, SETTINGS)}")
        if name in values:
            raise ConfigError(f"{name} is set twice ({path}).", name)
        values[name] = _read(name, raw, f"{path}: {key}")
    return values


def _users_from_file(raw: object, path: str) -> dict[str, str]:
    """``[users]``: a table of rules by name, which whoever knows the commands looks at."""
    if not isinstance(raw, dict) or not all(isinstance(rules, str) for rules in raw.values()):
        raise ConfigError(f'[users] has one line for each user, NAME = "rules" ({path}).', "users")
    return {str(name): str(rules) for name, rules in raw.items()}


def _check_users(config: Config) -> None:
    """There is one place where users are, and one where the password of the default user is; raises ConfigError."""
    if config.aclfile and config.users:
        raise ConfigError("aclfile and [users] are both set; where are the users?", "aclfile")
    if config.requirepass and (config.aclfile or "default" in config.users):
        where = f"the file {config.aclfile}" if config.aclfile else "[users]"
        raise ConfigError(
            f"requirepass is a password of the user default, who is in {where}: give it the rule '>PASSWORD' there instead.",
            "requirepass",
        )


def _check_together(config: Config) -> None:
    """What no setting can say of itself alone; raises ConfigError."""
    exposed = exposed_hosts(config)
    known = config.requirepass or config.aclfile or "default" in config.users
    if config.protected_mode and not known and exposed:
        raise ConfigError(
            f"Listening on {', '.join(exposed)} without a password is refused, since whoever reaches the port owns the "
            "data: set requirepass (KACHE_REQUIREPASS), or say protected-mode no.",
            "protected-mode",
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
                f"tls-protocols can be {' and '.join(TLS_PROTOCOLS)}, not '{_shortened(word)}'.", "tls-protocols"
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
