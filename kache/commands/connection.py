"""Rows about the connection itself; the router answers them."""

from __future__ import annotations

from .row import in_group, row

__all__ = ["ROWS"]

# fmt: off
ROWS = in_group("connection",
    row("auth", "[username] password", -2, "noscript loading stale fast no_auth allow_busy", "", "1.0.0", "O(1)",
        "Proves who the client is.", route="local", cluster="local"),
    row("client|getname", "", 2, "noscript loading stale allow_busy", "", "2.6.9", "O(1)",
        "Returns the name that this connection was given.", route="local", cluster="local"),
    row("client|help", "", 2, "loading stale", "", "5.0.0", "O(1)",
        "Lists the subcommands of CLIENT.", route="local", cluster="local"),
    row("client|id", "", 2, "noscript loading stale allow_busy", "", "5.0.0", "O(1)",
        "Returns the number of this connection.", route="local", cluster="local"),
    row("client|info", "", 2, "noscript loading stale", "", "6.2.0", "O(1)",
        "Describes this connection in the form of CLIENT LIST.", route="local", cluster="local"),
    row("client|kill",
        "addr:port | [ID client-id [client-id ...]] [TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [USER username] "
        "[ADDR addr:port] [LADDR addr:port] [SKIPME <YES | NO>] [MAXAGE seconds]",
        -3, "admin noscript loading stale", "", "2.4.0", "O(N) connections",
        "Closes connections chosen by address, number, type, user or age.",
        route="local", differs="The filters that Valkey 9 added (NAME, IDLE, NOT-… and others) are syntax errors.",
        cluster="local"),
    row("client|list",
        "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]] [USER username] [ADDR "
        "addr:port] [LADDR addr:port] [SKIPME <YES | NO>] [MAXAGE seconds]",
        -2, "admin noscript loading stale", "", "2.4.0", "O(N) connections",
        "Describes the open connections, one in a line.",
        route="local",
        differs="Without the filters that Valkey 9 added; fields without a meaning for Kache have a fixed value.",
        cluster="local"),
    row("client|no-evict", "<ON | OFF>", 3, "admin noscript loading stale allow_busy", "", "7.0.0", "O(1)",
        "Exempts this connection from being closed when clients need too much memory.", route="local", cluster="local"),
    row("client|no-touch", "<ON | OFF>", 3, "noscript loading stale allow_busy", "", "7.2.0", "O(1)",
        "Makes this connection's commands leave the idle times of keys as they are.", route="local",
        cluster="differs: Accepted without effect: all connections of a router share those to the nodes."),
    row("client|reply", "<ON | OFF | SKIP>", 3, "noscript loading stale no_multi allow_busy", "", "3.2.0", "O(1)",
        "Turns replies to this connection off or on, or skips the next one.", route="local", dialect="resp",
        cluster="local"),
    row("client|setinfo", "<LIB-NAME libname | LIB-VER libver>",
        4, "noscript loading stale allow_busy", "", "7.2.0", "O(1)",
        "Records the name or the version of the client library.", route="local", cluster="local"),
    row("client|setname", "connection-name", 3, "noscript loading stale allow_busy", "", "2.6.9", "O(1)",
        "Names this connection.", route="local", cluster="local"),
    row("echo", "message", 2, "loading stale fast", "", "1.0.0", "O(N) bytes",
        "Returns its argument.", route="local", cluster="local"),
    row("hello", "[protover [AUTH username password] [SETNAME clientname]]",
        -1, "noscript loading stale fast no_auth allow_busy", "", "6.0.0", "O(1)",
        "Chooses RESP2 or RESP3, with authentication and a name at the same time, and describes the server.",
        route="local", dialect="resp", cluster="local"),
    row("ping", "[message]", -1, "fast", "", "1.0.0", "O(1)",
        "Answers PONG, or its argument.", route="local", cluster="local"),
    row("quit", "", -1, "noscript loading stale fast no_auth allow_busy", "", "1.0.0", "O(1)",
        "Closes the connection after the replies to all that came before.", route="local", cluster="local"),
    row("reset", "", 1, "noscript loading stale fast no_auth allow_busy", "", "6.2.0", "O(1)",
        "Puts the connection back into the state of a new one.", route="local", dialect="resp", cluster="local"),
    row("select", "index", 2, "loading stale fast allow_busy", "", "1.0.0", "O(1)",
        "Chooses the database, 0 to 15, of this connection.", route="local",
        cluster="differs: A database other than 0 needs nodes that have it (Valkey 9, cluster-databases); "
        "elsewhere the error is theirs."),
)
# fmt: on
