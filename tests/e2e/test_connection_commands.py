"""Commands about the connection and the server: as a real server answers them, and what clients send when they connect.

SCRIPTS runs on a real Valkey and on Kache, each script on a connection of its own, and must get the same bytes.
Most of the file's length is those scripts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cluster import DEADLINE, Cluster, Connection, encode
from oracle.servers import valkey
from redis.backoff import NoBackoff
from redis.retry import Retry

from kache.errors import CommandError

WRONG_PASSWORD = CommandError("WRONGPASS invalid username-password pair or user is disabled.")
NO_AUTH = CommandError("NOAUTH Authentication required.")

SCRIPTS: dict[str, list[str]] = {
    "ping and echo": ["ping", "PING hello", "ping a b", "echo", "echo a b", "echo x", "time x", "dbsize x"],
    "refused hello": [
        "hello 4",
        "hello 1",
        "hello -1",
        "hello 03",
        "hello 3.0",
        "hello x",
        "hello 99999999999999999999",
        "hello setname x",
        "hello 3 foo",
        "hello 3 setname",
        "hello 3 auth default",
        "hello 3 auth foo bar",
        "hello 2 setname a\xa0b",
        "client getname",
        "ping",
    ],
    "names": [
        "client setname a",
        "client getname",
        "client setname a\xa0b",
        "client getname",
        "client setname",
        "client setinfo lib-name redis-py",
        "client setinfo LIB-VER 8.0.0",
        "client setinfo LIB-NAME a\xa0b",
        "client setinfo lib-foo x",
        "client setinfo lib-name",
        "client id x",
    ],
    "on and off": [
        "client no-evict on",
        "client no-evict off",
        "client no-evict x",
        "client no-evict",
        "client no-touch on",
        "client no-touch off",
        "client no-touch x",
    ],
    "kill and list": [
        "client kill",
        "client kill foo",
        "client kill 1.2.3.4:5",
        "client kill id",
        "client kill id x",
        "client kill id 0",
        "client kill id -1",
        "client kill id 99999",
        "client kill id 99998 99999",
        "client kill id 99999 0",
        "client kill type foo",
        "client kill type replica",
        "client kill user nobody",
        "client kill user default skipme x",
        "client kill addr 1.2.3.4:5",
        "client kill laddr 1.2.3.4:5",
        "client kill skipme yes id 99999",
        "client kill maxage x",
        "client kill maxage 0",
        "client kill maxage 1000000",
        "client kill foo bar",
        "client list foo",
        "client list foo bar",
        "client list id",
        "client list id x",
        "client list id 0",
        "client list id 99999 x",
        "client list id 99999 99998 type replica",
        "client list type foo",
        "client list type replica",
        "client list user nobody",
    ],
    "without replicas, modules and files": [
        "role x",
        "wait 0 10",
        "wait 1 1",
        "wait x 10",
        "wait 1 x",
        "wait 1 -1",
        "wait 1",
        "waitaof 0 0 10",
        "waitaof 0 1 1",
        "waitaof 1 0 10",
        "waitaof 2 0 10",
        "waitaof 0 x 1",
        "waitaof 0 0 -1",
        "lastsave x",
        "bgsave foo",
        "readonly",
        "readwrite",
        "readonly x",
        "acl whoami",
        "acl nosuch",
        "module nosuch",
        "module",
    ],
    "latency": [
        "latency latest",
        "latency history command",
        "latency history",
        "latency reset",
        "latency reset foo bar",
        "latency graph command",
        "latency histogram nosuch",
        "latency nosuch",
        "latency",
    ],
    "waiting and tracking": [
        "client pause",
        "client pause x",
        "client pause -1",
        "client pause 1 foo",
        "client pause 1 write",
        "client pause 1 all",
        "client pause 99999999999999999999",
        "client unpause",
        "client unpause x",
        "client unblock 99",
        "client unblock 99 error",
        "client unblock 99 foo",
        "client unblock x",
        "client trackinginfo",
        "client getredir",
    ],
    "select": [
        "set where 0",
        "select 3",
        "get where",
        "select 15",
        "select 16",
        "select -1",
        "select 2147483648",
        "select 9223372036854775808",
        "select 03",
        "select -0",
        "select +3",
        "select 1.5",
        "select x",
        "select",
        "select 1 2",
        "select 0",
        "get where",
        "swapdb 0 1",
        "get where",
        "swapdb 0 1",
        "get where",
        "swapdb 0 16",
        "swapdb a 1",
        "swapdb 0 b",
    ],
    "auth without a password": ["auth x", "auth default x", "auth nobody x", "auth a b c", "auth"],
    "unknown commands": [
        "nosuch",
        "nosuch a b",
        "NOSUCH " + " ".join("x" * 30 for _ in range(10)),
        "nosuch " + "y" * 300,
        "n" * 200 + " a",
        "nosuch a\nb",
        "client",
        "client foo",
        "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip",
        "config",
        "config foo",
        "object foo x",
        "memory foo",
        "command foo",
        "slowlog foo",
        "get",
        "get a b",
        "set a",
        "mset a",
        "mget",
        "ping",
    ],
    "config": [
        "CONFIG GET save",
        "CONFIG GET appendonly",
        "config get maxmemory",
        "config get nosuch*",
        "config get maxmemory maxmemory",
        "config get databases",
        "config get",
        "config set nosuch 1",
        "config set maxmemory 1 maxmemory 2",
        "config set maxmemory-policy allkeys-lru foo",
        "config set a",
        "config set maxmemory 100mb",
        "config get MAXMEMORY",
        "config set maxmemory 0",
    ],
    "command": [
        "command count x",
        "command info nosuch",
        "command docs nosuch",
        "command getkeys",
        "command getkeys get",
        "command getkeys get a",
        "command getkeys nosuch",
        "command getkeys ping",
        "command getkeys mset a 1 b 2",
        "command getkeysandflags",
        "command getkeysandflags get",
        "command getkeysandflags get a",
        "command getkeysandflags nosuch",
        "command getkeysandflags ping",
        "command getkeysandflags mset a 1 b 2",
        "command getkeysandflags set a 1",
        "command getkeysandflags set a 1 get",
        "command getkeysandflags lmove a b left left",
        "command getkeysandflags zunionstore a 1 b",
        "command getkeysandflags sort a store b",
        "command getkeysandflags bitfield a get u1 0",
        "command getkeysandflags bitfield a set u1 0 1",
        "command list filterby pattern client|setn*",
        "command list filterby",
        "command list foo",
        "command list filterby foo bar",
        "command list filterby pattern xx*",
        "command list filterby pattern get",
        "command list filterby module x",
    ],
    "flush": ["flushall foo", "flushall async sync", "flushdb sync", "flushall ASYNC", "dbsize"],
    "slowlog": ["slowlog get x", "slowlog get -2", "slowlog get 1 2", "slowlog reset"],
    "quit": ["set k v", "quit", "get k"],
    "quit with arguments": ["quit x y", "ping"],
    "reset": [
        "set k v",
        "select 3",
        "client setname x",
        "reset",
        "client getname",
        "get k",
        "reset x",
    ],
    "replies off": [
        "client reply off",
        "ping",
        "nosuch",
        "client reply skip",
        "ping",
        "ping",
        "client reply foo",
        "client reply on",
        "ping",
        "client reply",
        "client reply foo",
    ],
    "replies skipped": [
        "client reply skip",
        "ping",
        "ping 1",
        "client reply skip",
        "nosuch",
        "ping 2",
        "client reply skip",
        "client reply skip",
        "ping",
        "ping 3",
        "client reply skip",
        "client reply off",
        "ping",
        "client reply on",
        "client reply on",
        "client reply skip",
        "get",
        "ping 4",
    ],
}
RAW: dict[str, bytes] = {
    "inline": b"PING\r\n\r\n\r\nSET k 'a b'\r\nGET k\nGET  k \r\n",
    "inline quotes": b'SET k b"a\\x00\\n"\r\nGET k\r\nSET k \'a\\\'\\n\'\r\nGET k\r\nPING ""\r\n',
    "inline, unbalanced": b'PING\r\nSET k "a\r\nPING\r\n',
    "inline, a quote within a word": b'PING\r\nSET k a\\"b\r\nPING\r\n',
    "inline in another encoding": "\u00e9t\u00e9 x\r\nPING \u00e9\r\n".encode(),
    "inline in an old encoding": b"\xe9t\xe9 x\r\nPING \xe9\r\n",
    "inline that begins with a byte of its own": b"\x80abc x\r\nPING\r\n",
    "inline pipeline behind quit": b"PING\r\nQUIT\r\nPING\r\n",
    "empty arrays": b"*0\r\n*-1\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    "no bulk string": b"*1\r\n+PING\r\n",
    "no count": b"*x\r\n",
    "a count with a zero in front": b"*01\r\n$4\r\nPING\r\n",
    "a long count with zeros in front": b"*0000000001\r\n$4\r\nPING\r\n",
    "a count of minus zero": b"*-0\r\nPING\r\n",
    "two zeros": b"*00\r\nPING\r\n",
    "a length with a zero in front": b"*2\r\n$4\r\nECHO\r\n$01\r\na\r\n",
    "a length of two digits with a zero in front": b"*2\r\n$4\r\nECHO\r\n$010\r\n0123456789\r\n",
    "a length of minus zero": b"*2\r\n$4\r\nECHO\r\n$-0\r\n\r\n",
    "no length": b"*1\r\n$x\r\n",
    "negative length": b"*1\r\n$-1\r\n",
    "huge count": b"*99999999999\r\n",
    "huge length": b"*1\r\n$999999999999\r\n",
    "too long a line": b"PING " + b"x" * 65540,
}
WITH_PASSWORD: list[str] = [
    "ping",
    "nosuch x",
    "get",
    "get k",
    "client",
    "client id",
    "select 1",
    "command docs nosuch",
    "auth",
    "auth a b c",
    "hello",
    "hello 3",
    "hello 4",
    "hello 3 foo",
    "hello 2 setname x",
    "reset",
    "auth wrong",
    "hello 3 auth default wrong",
    "auth nobody secret",
    "ping",
    "auth default secret",
    "get k",
    "auth wrong",
    "get k",
    "reset",
    "get k",
    "auth secret",
    "get k",
    "quit",
]


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    with valkey() as port:
        yield port


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    with Cluster(2, requirepass="secret") as running:
        yield running


def words(line: str) -> tuple[str, ...]:
    """A command; a no-break space stands for a blank within a word."""
    return tuple(word.replace("\xa0", " ") for word in line.split(" "))


def transcript(port: int, data: bytes, protocol: int | None = None) -> list[bytes]:
    """The lines of everything the server answers to these bytes, up to the end of the connection."""
    with Connection(port) as connection:
        if protocol is not None:
            connection.request("hello", protocol)
        connection.socket.sendall(data)
        received = b""
        try:
            while part := connection.socket.recv(1 << 16):
                received += part
        except ConnectionResetError:
            # It closed with our input unread, which TCP turns into a reset behind the reply.
            pass
        return received.split(b"\r\n")


def both(ours: int, theirs: int, script: list[str], protocol: int | None = None) -> None:
    """Run a script on two servers and compare."""
    data = b"".join(encode(words(line)) for line in [*script, "quit"])
    assert transcript(ours, data, protocol) == transcript(theirs, data, protocol)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("protocol", [2, 3])
def test_as_a_real_server(cluster: Cluster, real: int, script: str, protocol: int) -> None:
    for port in (cluster.port, real):
        with Connection(port) as connection:
            connection.request("flushall")
    both(cluster.port, real, SCRIPTS[script], protocol)


@pytest.mark.parametrize("name", RAW)
def test_raw_bytes_as_a_real_server(cluster: Cluster, real: int, name: str) -> None:
    ours, theirs = (transcript(port, RAW[name] + b"QUIT\r\n") for port in (cluster.port, real))
    assert ours == theirs


def test_with_a_password_as_a_real_server(guarded: Cluster) -> None:
    with valkey("--requirepass", "secret") as port:
        both(guarded.port, port, WITH_PASSWORD)


def test_the_shape_of_hello(cluster: Cluster, real: int) -> None:
    """The same fields in the same order; the names of server and version, the id and the modules are our own."""
    for protocol in (2, 3):
        with cluster.connect() as ours, Connection(real) as theirs:
            found, wanted = (each.request("hello", protocol, "setname", "me") for each in (ours, theirs))
            if protocol == 2:
                found, wanted = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in (found, wanted))
            assert list(found) == list(wanted)
            same = (b"proto", b"mode", b"role")
            assert [found[name] for name in same] == [wanted[name] for name in same]
            assert found[b"server"] == b"redis" and found[b"version"] == b"7.4.2"
            assert found[b"id"] == ours.request("client", "id") and found[b"modules"] == []
            assert ours.request("client", "getname") == b"me"


def test_text_behind_a_closing_quote_is_an_error(cluster: Cluster) -> None:
    """As in every Redis; Valkey 9, which the scripts above are compared with, takes it for part of the word."""
    wanted = [b"-ERR Protocol error: unbalanced quotes in request", b""]
    for line in (b'set """a""" b', b'set "a"b c', b"set 'a'b c", b'set k "a""b"'):
        assert transcript(cluster.port, line + b"\r\nPING\r\n") == wanted


@pytest.mark.parametrize("start", [b"\xff\xff\xff\xff", b"\x01\x02\x03\x09", b"\x00\x00\x00\x0a", b"\x7f\x45\x4c\x46"])
def test_what_is_no_text_is_refused_at_once(cluster: Cluster, start: bytes) -> None:
    """Broken lengths of the binary protocol, and other bytes that no line of text begins with, do not wait for a line's end."""
    assert transcript(cluster.port, start) == [b"-ERR Protocol error: neither RESP nor a binary request", b""]


def test_redis_py_pipelines_are_transactions(cluster: Cluster) -> None:
    cluster.request("del", "counter")
    with redis.Redis(port=cluster.port) as client:
        with client.pipeline() as pipeline:
            assert pipeline.incr("counter").expire("counter", 10).execute() == [1, True]

        def double(pipeline: redis.client.Pipeline) -> None:
            value = int(pipeline.get("counter"))
            pipeline.multi()
            pipeline.set("counter", 2 * value).incr("another")

        assert client.transaction(double, "counter") == [True, 1]
        with client.pipeline(transaction=False) as pipeline:
            assert pipeline.get("counter").incr("counter").execute() == [b"2", 3]


def test_a_standalone_server_that_has_saved_nothing(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        assert connection.request("module", "list") == []
        assert connection.request("role") == [b"master", 0, []]
        saved = connection.request("lastsave")
        assert connection.request("info", "persistence").find(b"rdb_last_save_time:%d\r\n" % saved) > 0


def test_every_command_and_subcommand_is_listed(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        names = connection.request("command", "list")
        assert {b"get", b"client", b"client|list", b"cluster|slots"} <= set(names) and len(names) == len(set(names))
        infos = connection.request("command", "info", *names)
        assert [info[0] for info in infos] == names


def test_the_lines_of_client_list(cluster: Cluster, real: int) -> None:
    with cluster.connect() as ours, Connection(real) as theirs:
        for each in (ours, theirs):
            each.send(("select", 2), ("client", "setname", "me"), ("client", "setinfo", "lib-name", "test"))
            each.send(("client", "no-evict", "on"), ("client", "no-touch", "on"))
            each.read_many(5)
        for command in (("client", "info"), ("client", "list")):
            found, wanted = (
                next(
                    dict(field.split(b"=", 1) for field in line.split())
                    for line in reply.splitlines()
                    if b"=me " in line
                )
                for reply in (each.request(*command) for each in (ours, theirs))
            )
            assert [name for name in found if name != b"router"] == [name for name in wanted if name != b"capa"]
            same = (b"name", b"flags", b"db", b"cmd", b"user", b"resp", b"lib-name", b"multi", b"tot-cmds")
            assert [found[name] for name in same] == [wanted[name] for name in same]
            assert found[b"addr"] == b"%s:%d" % (b"127.0.0.1", ours.socket.getsockname()[1])
            assert found[b"laddr"] == b"127.0.0.1:%d" % cluster.port


def test_client_kill(cluster: Cluster) -> None:
    with cluster.connect() as killer:
        for way in ("old", "addr", "id", "several"):
            with cluster.connect() as victim:
                number = victim.request("client", "id")
                address = "{}:{}".format(*victim.socket.getsockname())
                command = {
                    "old": ("client", "kill", address),
                    "addr": ("client", "kill", "addr", address),
                    "id": ("client", "kill", "id", number),
                    "several": ("client", "kill", "id", number, 987654321, "type", "normal", "user", "default"),
                }[way]
                assert killer.request(*command) == ("OK" if way == "old" else 1)
                assert victim.socket.recv(1) == b""
        number = killer.request("client", "id")
        assert killer.request("client", "kill", "id", number) == 0
        assert killer.request("client", "kill", "id", number, "skipme", "no") == 1
        assert killer.socket.recv(1) == b""


def test_client_kill_spares_the_others(cluster: Cluster) -> None:
    with cluster.connect() as killer, cluster.connect() as first, cluster.connect() as second:
        number = first.request("client", "id")
        assert second.request("ping") == killer.request("ping") == "PONG"
        assert killer.request("client", "kill", "type", "normal", "id", number) == 1
        assert second.request("ping") == "PONG"


def test_what_redis_py_8_sends_at_connect(cluster: Cluster, guarded: Cluster) -> None:
    """As one pipeline: everything is answered, the unknown subcommand with an error that leaves the connection open."""
    for running, login in ((cluster, ()), (guarded, ("AUTH", "default", "secret"))):
        with running.connect() as connection:
            connection.send(
                ("HELLO", 3, *login, "SETNAME", "app"),
                ("CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"),
                ("CLIENT", "SETINFO", "LIB-NAME", "redis-py"),
                ("CLIENT", "SETINFO", "LIB-VER", "8.0.0"),
                ("SELECT", 1),
                ("PING",),
            )
            hello, notifications, *rest = connection.read_many(6)
            assert hello[b"proto"] == 3
            assert notifications == CommandError("ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.")
            assert rest == ["OK", "OK", "OK", "PONG"]
            info = connection.request("CLIENT", "INFO").text
            assert b" name=app " in info and b" db=1 " in info and b" resp=3 lib-name=redis-py lib-ver=8.0.0 " in info


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_with_a_password(guarded: Cluster, protocol: int) -> None:
    options: dict[str, Any] = {"port": guarded.port, "protocol": protocol, "decode_responses": True}
    with redis.Redis(password="secret", **options) as client:
        assert client.ping() and client.set("k", "v") and client.get("k") == "v"
    with redis.Redis(username="default", password="secret", client_name="me", db=7, **options) as client:
        assert client.client_getname() == "me" and client.client_info()["db"] == 7
    options["retry"] = Retry(NoBackoff(), 0)  # by itself it tries a refused login again and again, seconds later
    with redis.Redis(password="wrong", **options) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with redis.Redis(**options) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_connection_that_keeps_guessing_is_closed() -> None:
    """On a cluster of its own: where others have guessed from here before, every answer comes seconds late."""
    with Cluster(1, requirepass="secret") as fresh:
        _keeps_guessing(fresh)


def _keeps_guessing(guarded: Cluster) -> None:
    with guarded.connect() as connection:
        connection.send(*[("auth", f"guess-{number}") for number in range(50)])
        answers = []
        with pytest.raises((ConnectionError, OSError)):
            while True:
                answers.append(connection.read())
        assert answers == [WRONG_PASSWORD] * 5
    with guarded.connect() as connection:
        for _ in range(4):
            assert connection.request("hello", 3, "auth", "default", "guess") == WRONG_PASSWORD
        assert connection.request("auth", "secret") == "OK"
        assert connection.request("auth", "guess") == WRONG_PASSWORD
        assert connection.request("ping") == "PONG"


@pytest.mark.parametrize("data", [b"*1000\r\n", b"*2\r\n$3\r\nGET\r\n$1000000\r\n", b"x" * 100_000, b"PING\r\n" * 500])
def test_a_stranger_cannot_make_the_router_work(guarded: Cluster, data: bytes) -> None:
    with guarded.connect() as connection:
        connection.send()
        replies = 0
        with pytest.raises((ConnectionError, OSError)):
            connection.socket.sendall(data)
            while reply := connection.read():
                assert isinstance(reply, CommandError)
                replies += 1
        assert replies <= 130


def test_info_as_redis_py_reads_it(cluster: Cluster, real: int) -> None:
    """Every field has the type it has on a real server."""
    with redis.Redis(port=cluster.port) as ours, redis.Redis(port=real) as theirs:
        for client in (ours, theirs):
            client.flushall()
            client.set("k", "v", ex=1000)
            client.get("k")
            client.get("none")
        found, wanted = ours.info(), theirs.info()
        assert found["db0"].items() >= {"keys": 1, "expires": 1}.items() and found["db0"]["avg_ttl"] > 0
        # Left out: lines with fields of their own, and what a real server has without a fraction by chance.
        for name in set(found) & set(wanted) - {"db0"}:
            assert isinstance(found[name], int | float) == isinstance(wanted[name], int | float), name
        for section in ("server", "clients", "memory", "persistence", "stats", "replication", "cpu", "keyspace"):
            assert ours.info(section), section
        assert ours.info("commandstats")["cmdstat_get"]["calls"] >= 2
        assert ours.info("nosuch") == {}
        assert found["redis_version"] == "7.4.2" and found["redis_mode"] == "standalone" and found["role"] == "master"
        assert ours.info("shards")["shards"] == cluster.shards
        assert "cmdstat_get" in ours.info("all") and "cmdstat_get" not in found


def test_errorstats_count_the_routers_errors_too(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.request("config", "resetstat")
        connection.send(
            ("nosuch",), ("get",), ("hello", 9), ("select", "x"), ("set", "text", "v"), ("lpush", "text", 1)
        )
        connection.read_many(6)
        lines = connection.request("info", "errorstats").decode().split()
        assert {"errorstat_ERR:count=3", "errorstat_NOPROTO:count=1", "errorstat_WRONGTYPE:count=1"} <= set(lines)
        assert b"total_error_replies:5\r\n" in connection.request("info", "stats")


def test_sixteen_databases(cluster: Cluster) -> None:
    with redis.Redis(port=cluster.port) as first:
        first.flushall()
        for number in range(16):
            with redis.Redis(port=cluster.port, db=number) as client:
                client.set("where", number)
        for number in range(16):
            with redis.Redis(port=cluster.port, db=number) as client:
                assert client.get("where") == b"%d" % number and client.dbsize() == 1
        assert set(first.info("keyspace")) == {f"db{number}" for number in range(16)}
        with redis.Redis(port=cluster.port, db=16) as client, pytest.raises(redis.ResponseError, match="out of range"):
            client.ping()


def test_shutdown_ends_the_cluster_without_a_reply() -> None:
    """redis-py takes a reply for a failure."""
    running = Cluster(2)
    with running:
        with redis.Redis(port=running.port) as client:
            assert client.set("k", "v")
            client.shutdown(nosave=True)
        deadline = time.monotonic() + DEADLINE
        while running.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
