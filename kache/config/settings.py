"""The configuration: every setting of a cluster, once, with its unit, its reason and its default.

`Config` is immutable; the supervisor owns the effective one and gives it to every child (`kache.cluster.control`).
Most of its length is the table of settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

import msgspec

from kache.config.client_limits import DEFAULT_LIMITS, Limit
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
    SIZE_OR_SHARE,
    TEXT,
    WORD,
    YES_NO,
    Setting,
)
from kache.errors import KacheError

__all__ = [
    "DEFAULTS",
    "MOST_ROUTERS",
    "SETTINGS",
    "TLS_PROTOCOLS",
    "Config",
    "ConfigError",
    "shortened",
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
            "What is evicted when memory is full. The default chooses by what would have missed least lately; that of Redis is "
            "noeviction.",
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
    ] = "allkeys-auto"
    maxmemory_samples: Annotated[
        int, Setting(COUNT, "Keys looked at to choose one, for the policies that sample.", live=True, low=1, high=64)
    ] = 5
    miniature_simulations: Annotated[
        bool,
        Setting(
            YES_NO,
            "Whether every shard simulates other policies and sizes of memory on a sample of its keys, for kache advise: "
            "while memory is nearly full and a policy evicts, otherwise for an hour after kache advise asked. Takes 0.6 MB a "
            "shard; the policies auto need it and have it anyway, as long as there is a maxmemory.",
            live=True,
        ),
    ] = True
    maxmemory_clients: Annotated[
        int,
        Setting(
            SIZE_OR_SHARE,
            "Memory that all clients may cost over all routers: unread replies, unfinished requests. As it fills, the largest "
            "are not read; beyond it they are closed. A request that is larger is never read to its end: have room for several "
            "of the largest. At least 1mb; 0, and a percentage while there is no maxmemory: an eighth of the machine's, at "
            "least 256mb.",
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

DEFAULTS = Config()
"""What is so where nobody says otherwise."""


def shortened(text: str) -> str:
    """A value in a sentence: whoever sent a megabyte knows the rest."""
    return text if len(text) <= 100 else f"{text[:100]}..."
