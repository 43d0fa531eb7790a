"""Commands in Python in real clusters: loaded, replaced and unloaded under load, in all shards or in none, and kept."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Connection, kill_everything, until
from ports import free_port

from kache.errors import CommandError
from kache.testing import LocalCluster

HEAD = "from kache.module import Context, command\n"
COUNTER = """
@command("ratelimit", flags="write fast")
def ratelimit(ctx: Context, key: bytes, limit: bytes) -> bool:
    \"\"\"Says whether a caller is within its limit.\"\"\"
    used = int(ctx.get(key) or 0) + 1
    ctx.set(key, used, px=3_600_000)
    return used <= int(limit)
"""
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "python-commands.md"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Four shards behind two routers; every test unloads what it loads."""
    with Cluster(4, routers=2) as running:
        yield running


@pytest.fixture
def load(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Loads a module of this text; whatever is loaded is unloaded behind the test."""

    def load_it(source: str, name: str = "app", replace: bool = False) -> str:
        return cluster.kache("module", "load", *["--replace"] * replace, written(cluster, source, name)).stdout

    yield load_it
    for line in cluster.kache("module", "list").stdout.splitlines():
        if ": " in line:
            cluster.kache("module", "unload", line.partition(":")[0])


def written(cluster: Cluster, source: str, name: str = "app") -> Path:
    path = cluster.directory / f"{name}.py"
    path.write_text(HEAD + source)
    return path


def version(number: int, more: str = "") -> str:
    return f"{more}\n@command('v', flags='readonly')\ndef v(ctx, key): return {number}\n"


def refusal(cluster: Cluster, *words: object) -> str:
    done = cluster.kache("module", *words, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


# Loading ------------------------------------------------------------------------------------------------------------


def test_a_module_is_loaded_listed_described_and_unloaded(cluster: Cluster, load: Callable[..., str]) -> None:
    path = written(cluster, COUNTER)
    assert cluster.kache("module", "list").stdout == "No module is loaded.\n"
    assert cluster.kache("module", "load", path).stdout == "The module app is loaded: ratelimit.\n"
    assert cluster.kache("module", "list").stdout.startswith(f"app: ratelimit  ({path}, loaded 20")
    for _ in range(8):  # both routers
        with cluster.connect() as client:
            assert client.request("COMMAND", "INFO", "ratelimit")[0][:2] == [b"ratelimit", 3]
            assert client.request("COMMAND", "LIST", "FILTERBY", "MODULE", "app") == [b"ratelimit"]
            assert client.request("COMMAND", "LIST", "FILTERBY", "MODULE", "none") == []
            assert client.request("COMMAND", "GETKEYS", "RATELIMIT", "k", "1") == [b"k"]
            assert b"ratelimit" in client.request("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write")
            assert client.request("MODULE", "LIST")[0][:2] == [b"name", b"app"]
            docs = client.request("COMMAND", "DOCS", "ratelimit")
            assert docs[0] == b"ratelimit" and b"Says whether a caller is within its limit." in docs[1]
            assert client.request("RateLimit", "describe:{a}", 100) == 1
            assert isinstance(client.request("ratelimit", "describe:{a}"), CommandError)
    assert cluster.request("GET", "describe:{a}") == b"8"
    assert "is loaded already; --replace" in refusal(cluster, "load", path)
    cluster.kache("module", "unload", "app")
    for _ in range(8):
        with cluster.connect() as client:
            reply = client.request("ratelimit", "k", 1)
            assert isinstance(reply, CommandError) and reply.message.startswith("ERR unknown command 'ratelimit'")
            assert client.request("COMMAND", "INFO", "ratelimit") == [None]
    assert "There is no module app" in refusal(cluster, "unload", "app")
    assert cluster.request("GET", "describe:{a}") == b"8"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("1 / 0", "line 2: ZeroDivisionError"),
        ("import os; os._exit(7)", "the process that tried it ended with status 7"),
        ("import os; os.kill(os.getpid(), 9)", "the process that tried it was killed by SIGKILL"),
        ("print('hello')", "it declares no command"),
        ("@command('get')\ndef get(ctx, key): pass", "the command get: a command of that name is built in"),
        # Fine where it is tried, and nowhere else, or not in one shard.
        ("import sys\nif 'kache.shard.main' in sys.modules: raise ValueError('not here')\n" + version(1), "cannot take it in: app: line 3: ValueError: not here"),
        ("import setproctitle\nif 'shard 2' in setproctitle.getproctitle(): raise ValueError('not here')\n" + version(1),
         "shard 2 cannot take it in: app: line 3: ValueError: not here"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_changes_nothing(
    cluster: Cluster, load: Callable[..., str], source: str, text: str
) -> None:
    load(COUNTER, "other")
    load(version(7), "app")
    said = refusal(cluster, "load", "--replace", written(cluster, source, "app"))
    assert said.startswith("kache: The module app was not loaded") and text in said and "Traceback" not in said
    for key in range(20):
        assert cluster.request("v", f"k{key}") == 7
    assert cluster.request("ratelimit", "still there", 1) == 1
    cluster.request("DEL", "still there")


def test_two_modules_cannot_have_one_command(cluster: Cluster, load: Callable[..., str]) -> None:
    load(version(1), "one")
    assert "the command v is in the module one already" in refusal(cluster, "load", written(cluster, version(2), "two"))
    cluster.kache("module", "unload", "one.py")
    assert "is no name of letters" in refusal(cluster, "load", written(cluster, version(1), "my-module"))
    assert "cannot be read: No such file" in refusal(cluster, "load", "/nowhere/at/all.py")


def test_clients_load_nothing(cluster: Cluster, load: Callable[..., str]) -> None:
    for words in (
        ("MODULE", "LOAD", "/tmp/x.py"),
        ("MODULE", "UNLOAD", "app"),
        ("CONFIG", "SET", "modules", "/tmp/x.py"),
    ):
        with pytest.raises(CommandError):
            cluster.request(*words)


# Under load ---------------------------------------------------------------------------------------------------------


def test_replacing_under_load_fails_nobody(cluster: Cluster, load: Callable[..., str]) -> None:
    """Versions with the same arguments, and with other ones: every reply is of a version that there was."""
    load(version(1))
    stop = threading.Event()
    wrong: list[Any] = []
    seen: set[int] = set()

    def ask(number: int) -> None:
        with cluster.connect() as client:
            while not stop.is_set():
                client.send(*[("v", f"k{number}:{n}") for n in range(16)])
                replies = client.read_many(16)
                seen.update(reply for reply in replies if isinstance(reply, int))
                wrong.extend(reply for reply in replies if not isinstance(reply, int))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        for number in range(2, 8):
            source = version(number) if number % 2 else version(number).replace("(ctx, key)", "(ctx, key, more=b'')")
            load(source, replace=True)
            until(lambda number=number: number in seen, f"version {number} is executed")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == [] and seen == set(range(1, 8))
    assert {cluster.request("v", f"k{key}") for key in range(20)} == {7}


def test_unloading_under_load_is_an_unknown_command(cluster: Cluster, load: Callable[..., str]) -> None:
    load(version(1))
    gone = threading.Event()
    texts: set[str] = set()
    after: list[Any] = []

    def ask(number: int) -> None:
        with cluster.connect() as client:
            while not gone.is_set():
                reply = client.request("v", f"k{number}")
                if isinstance(reply, CommandError):
                    texts.add(reply.message)
            after.append(client.request("v", f"k{number}"))
            assert client.request("SET", f"k{number}", "x") == "OK"

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    cluster.kache("module", "unload", "app")
    gone.set()
    for thread in threads:
        thread.join()
    assert all(text.startswith("ERR unknown command 'v'") for text in texts)
    assert len(after) == 6 and all("unknown command 'v'" in str(reply) for reply in after)


def test_fifty_clients_on_one_key_lose_no_update(cluster: Cluster, load: Callable[..., str]) -> None:
    load(COUNTER)
    allowed = [0] * 50

    def ask(number: int) -> None:
        with cluster.connect() as client:
            for _ in range(10):
                client.send(*[("ratelimit", "limit:one", 700)] * 4)
                allowed[number] += sum(client.read_many(4))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 700 and cluster.request("GET", "limit:one") == b"2000"


# Beside the rest ----------------------------------------------------------------------------------------------------


def test_transactions_execute_it(cluster: Cluster, load: Callable[..., str]) -> None:
    load(COUNTER + version(1))
    keys = [own[0] for own in cluster.keys_by_shard()]
    with cluster.connect() as client:
        client.send(("MULTI",), *[("ratelimit", key, 1) for key in keys * 2], ("ratelimit",), ("DISCARD",))
        assert str(client.read_many(11)[-2]).startswith("ERR wrong number of arguments")
        client.send(("MULTI",), *[("ratelimit", key, 1) for key in keys * 2], ("v", keys[0]), ("EXEC",))
        assert client.read_many(11)[-1] == [1, 1, 1, 1, 0, 0, 0, 0, 1]
        client.send(("MULTI",), ("ratelimit", keys[0], 3), ("GET", keys[0]), ("EXEC",))
        assert client.read_many(4)[-1] == [1, b"3"]
        # Queued before it is gone.
        client.send(("MULTI",), ("v", keys[0]), ("GET", keys[0]))
        client.read_many(3)
        cluster.kache("module", "unload", "app")
        found = client.request("EXEC")
        assert "unknown command 'v'" in str(found[0]) and found[1] == b"3"
    cluster.request("DEL", *keys)


def test_keys_lie_on_one_shard(cluster: Cluster, load: Callable[..., str]) -> None:
    source = "@command('both', keys='1..-1', flags='readonly')\ndef both(ctx, *keys): return [ctx.get(key) for key in keys]\n"
    load(source)
    one, other = (own[0] for own in cluster.keys_by_shard()[:2])
    assert cluster.request("both", "{t}1", "{t}2") == [None, None]
    with pytest.raises(CommandError, match="CROSSSLOT"):
        cluster.request("both", one, other)
    with pytest.raises(CommandError, match="wrong number of arguments"):
        cluster.request("both")


MOVING = """
from kache.errors import CommandError

@command('pay', keys=2, cross_shard=True)
def pay(ctx, source, target, amount):
    if int(ctx.get(source) or 0) < int(amount):
        raise CommandError('POOR not enough')
    ctx.incr(source, -int(amount))
    return ctx.incr(target, int(amount))

@command('all', keys='1..-1', flags='readonly', cross_shard=True)
def all_of(ctx, *keys): return [ctx.get(key) for key in keys]

@command('peep', keys=2, cross_shard=True)
def peep(ctx, one, other, third): return ctx.get(third)
"""


def test_keys_lie_on_any_shards(cluster: Cluster, load: Callable[..., str]) -> None:
    """Clients that move money over all shards while others look at all of it: never more or less."""
    load(MOVING)
    keys = [own[0] for own in cluster.keys_by_shard()]
    for key in keys:
        cluster.request("SET", key, 100)
    assert cluster.request("pay", keys[0], keys[1], 30) == 130
    with pytest.raises(CommandError, match="POOR not enough"):
        cluster.request("pay", keys[0], keys[1], 71)
    with pytest.raises(CommandError, match="CROSSSLOT"):
        cluster.request("peep", keys[0], keys[1], keys[2])
    assert cluster.request("all", *keys) == [b"70", b"130", b"100", b"100"]
    with cluster.connect() as client:
        client.send(("MULTI",), ("pay", keys[1], keys[0], 30), ("GET", keys[0]), ("EXEC",))
        assert client.read_many(4)[-1] == [100, b"100"]
    sums: list[int] = []
    wrong: list[object] = []

    def move(number: int) -> None:
        with cluster.connect() as client:
            for turn in range(25):
                found = client.request("pay", keys[(number + turn) % 4], keys[(number + 2 * turn + 1) % 4], turn % 7)
                if isinstance(found, CommandError) and found.code != "POOR":
                    wrong.append(found)
                sums.append(sum(map(int, client.request("all", *keys))))

    threads = [threading.Thread(target=move, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(sums) == 150 and set(sums) == {400}
    cluster.request("DEL", *keys)


def test_rules_of_users_name_it(cluster: Cluster, load: Callable[..., str]) -> None:
    with pytest.raises(CommandError, match="Unknown command or category name in ACL"):
        cluster.request("acl", "setuser", "draws", "+v")
    load(version(1))
    for name, rules in {
        "draws": ("+v",),
        "reads": ("+@read",),
        "writes": ("+@write",),
        "all": ("+@all", "-v"),
    }.items():
        cluster.request("acl", "setuser", name, "on", ">pw", "~mine:*", *rules)
    try:
        with as_user("draws", cluster) as draws:
            assert draws.request("v", "mine:1") == 1
            assert "NOPERM" in str(draws.request("v", "other")) and "NOPERM" in str(draws.request("get", "mine:1"))
            load(version(2), replace=True)
            assert draws.request("v", "mine:1") == 2  # also with another number and what its rules said before
            cluster.kache("module", "unload", "app")
            assert "unknown command" in str(draws.request("v", "mine:1"))
            load(version(3))
            assert draws.request("v", "mine:1") == 3
        allowed = []
        for name in ("draws", "reads", "writes", "all"):
            with as_user(name, cluster) as user:
                allowed.append("NOPERM" not in str(user.request("v", "mine:1")))
        assert allowed == [True, True, False, False]
        assert cluster.request("acl", "dryrun", "draws", "v", "mine:1") == "OK"
        assert b"v" in cluster.request("acl", "cat", "read")
    finally:
        cluster.request("acl", "deluser", "draws", "reads", "writes", "all")


def as_user(name: str, cluster: Cluster) -> Connection:
    """A connection of this user."""
    connection = cluster.connect()
    assert connection.request("auth", name, "pw") == "OK"
    return connection


def test_the_slow_log_statistics_and_monitor_know_it(cluster: Cluster, load: Callable[..., str]) -> None:
    load(COUNTER)
    cluster.request("CONFIG", "SET", "slowlog-log-slower-than", "0")
    try:
        with cluster.connect() as monitor:
            monitor.request("MONITOR")
            cluster.request("ratelimit", "seen", 5)
            until(lambda: b'"ratelimit" "seen" "5"' in str(monitor.read()).encode(), "MONITOR shows it")
        assert any(entry[3] == [b"ratelimit", b"seen", b"5"] for entry in cluster.request("SLOWLOG", "GET", -1))
        assert b"cmdstat_ratelimit:calls=" in cluster.request("INFO", "commandstats")
    finally:
        cluster.request("CONFIG", "SET", "slowlog-log-slower-than", "10000")
        cluster.request("DEL", "seen")


def test_errors_and_endless_loops_end_no_shard(cluster: Cluster, load: Callable[..., str]) -> None:
    source = """
@command('fails', flags='readonly')
def fails(ctx, key): raise ValueError('as it should')
@command('spins', flags='readonly')
def spins(ctx, key):
    while True: pass
@command('odd', flags='readonly')
def odd(ctx, key): return object()
"""
    load(source)
    pids = [cluster.pid_of("shard", index) for index in range(4)]
    with pytest.raises(CommandError, match="ERR fails: ValueError: as it should"):
        cluster.request("fails", "k")
    with pytest.raises(CommandError, match="ERR spins: it took longer than module-time-limit-ms allows"):
        cluster.request("spins", "k")
    with pytest.raises(CommandError, match="ERR odd: TypeError: a reply cannot be of type object"):
        cluster.request("odd", "k")
    assert cluster.request("SET", "k", "v") == "OK" and cluster.request("DEL", "k") == 1
    assert [cluster.pid_of("shard", index) for index in range(4)] == pids
    log = cluster.log()
    assert "error in fails, a command of a module" in log and "raise ValueError('as it should')" in log


def test_children_that_are_started_again_have_it(cluster: Cluster, load: Callable[..., str]) -> None:
    load(version(1))
    load(version(2), replace=True)
    for role, index in (("shard", 1), ("router", 0), ("router", 1)):
        pid = cluster.pid_of(role, index)
        cluster.kill(pid)
        until(lambda role=role, index=index, pid=pid: is_back(cluster, role, index, pid), "it is back")

    def answers() -> bool:
        replies = []
        for keys in cluster.keys_by_shard():
            with Connection(cluster.port) as client:
                replies.append(client.request("v", keys[0]))
        return replies == [2, 2, 2, 2]

    until(answers, "every shard has the module")


def is_back(cluster: Cluster, role: str, index: int, pid: int) -> bool:
    """Whether another process serves in the place of that one."""
    child = cluster.child(role, index)
    return child["pid"] not in (0, pid) and child["state"] == "up"


# Starting -----------------------------------------------------------------------------------------------------------


def test_the_setting_loads_modules(tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text(HEAD + version(3))
    with Cluster(2, modules=path, start_method="exec") as running:
        assert running.request("v", "k") == 3
        assert running.kache("module", "list").stdout.startswith("app: v ")
        assert running.request("CONFIG", "GET", "modules") == [b"modules", str(path).encode()]


@pytest.mark.parametrize(
    ("source", "text"),
    [("1 / 0\n", "cannot be loaded: line 2: ZeroDivisionError"), (None, "cannot be read: No such file")],
)
def test_a_module_that_does_not_load_is_no_cluster(tmp_path: Path, source: str | None, text: str) -> None:
    path = tmp_path / "app.py"
    if source is not None:
        path.write_text(HEAD + source)
    running = Cluster(1, modules=path)
    try:
        with pytest.raises(AssertionError, match="did not start"):
            running.start()
        assert re.search(f"he module .*app.py {text}", running.log()) and "Traceback" not in running.log()
    finally:
        running._clean()


def test_what_it_changed_is_there_after_a_kill_of_everything(tmp_path: Path) -> None:
    """Time and chance are not called again when the log is read; the module is not even needed."""
    source = (
        COUNTER
        + """
@command("draw")
def draw(ctx, key):
    ctx.set(key + b":at", ctx.now_ms)
    for _ in range(5):
        ctx.call("RPUSH", key, ctx.random.random())
    ctx.zincrby(key + b":z", "m", 0.5)
    ctx.hset(key + b":h", {"f": ctx.random.random()})
    return ctx.call("LRANGE", key, 0, -1)
"""
    )
    with Cluster(1, port=free_port(), appendonly="yes", appendfsync="always") as running:
        running.kache("module", "load", written(running, source))
        drawn = [running.request("draw", f"k{n}") for n in range(20)]
        allowed = sum(running.request("ratelimit", "limit", 30) for _ in range(40))
        state = dump(running)
        kill_everything(running)
        running.start()
        assert allowed == 30 and dump(running) == state
        assert [running.request("LRANGE", f"k{n}", 0, -1) for n in range(20)] == drawn
        with pytest.raises(CommandError, match="unknown command"):
            running.request("draw", "k")


def dump(cluster: Cluster) -> dict[bytes, Any]:
    """Every key with its value and its deadline."""
    readers = {
        "string": ("GET",),
        "list": ("LRANGE", 0, -1),
        "hash": ("HGETALL",),
        "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    }
    found = {}
    for key in cluster.request("KEYS", "*"):
        name, *rest = readers[cluster.request("TYPE", key)]
        found[key] = (cluster.request(name, key, *rest), cluster.request("PEXPIRETIME", key))
    return found


# The three of the documentation -------------------------------------------------------------------------------------


def example(name: str) -> str:
    """A file that the document shows."""
    return next(
        block
        for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        if block.startswith(f"# {name}\n")
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster with all of them, and a clock that stands still."""
    folder = tmp_path_factory.mktemp("examples")
    names = ("hits.py", "limits.py", "board.py", "swr.py")
    for name in names:
        (folder / name).write_text(example(name))
    with LocalCluster(2, modules=[str(folder / name) for name in names]) as running:
        running.freeze()
        yield running


def test_hits(shown: LocalCluster) -> None:
    client = shown.client()
    assert [client.execute("HITS", "page:7", 2) for _ in range(3)] == [1, 1, 0]
    shown.advance(seconds=1)
    assert client.execute("HITS", "page:7", 2) == 1


def test_the_rate_limiter(shown: LocalCluster) -> None:
    client = shown.client()
    assert [client.execute("LIMITS.TAKE", "u", 3, 3000) for _ in range(4)] == [
        [1, 2, 0],
        [1, 1, 0],
        [1, 0, 0],
        [0, 0, 1000],
    ]
    shown.advance(milliseconds=999)
    assert client.execute("LIMITS.TAKE", "u", 3, 3000) == [0, 0, 1]
    shown.advance(milliseconds=1)
    assert client.execute("LIMITS.TAKE", "u", 3, 3000) == [1, 0, 0]
    shown.advance(milliseconds=2000)
    assert client.execute("LIMITS.TAKE", "u", 3, 3000, 0) == [1, 2, 0]
    assert client.execute("LIMITS.TAKE", "u", 3, 3000, 3) == [0, 2, 1000]
    assert client.execute("LIMITS.TAKE", "u", 3, 3000, 2) == [1, 0, 0]
    shown.advance(milliseconds=3000)
    assert client.execute("EXISTS", "u") == 0
    with pytest.raises(CommandError, match="limit and window are at least 1"):
        client.execute("LIMITS.TAKE", "u", 0, 3000)


def test_the_leaderboard(shown: LocalCluster) -> None:
    client = shown.client()

    def standing() -> list[tuple[bytes, float]]:
        return [(member, round(worth, 6)) for member, worth in client.execute("BOARD.TOP", "b", 10)]

    assert client.execute("BOARD.ADD", "b", "ada", 100) == pytest.approx(100)
    assert client.execute("BOARD.ADD", "b", "bob", 60) == pytest.approx(60)
    assert client.execute("BOARD.ADD", "b", "bob", 30) == pytest.approx(90)
    assert standing() == [(b"ada", 100.0), (b"bob", 90.0)]
    shown.advance(days=1)
    assert client.execute("BOARD.ADD", "b", "bob", 10) == pytest.approx(55)
    assert standing() == [(b"bob", 55.0), (b"ada", 50.0)]
    shown.advance(days=2)
    assert standing() == [(b"bob", 13.75), (b"ada", 12.5)]
    with pytest.raises(CommandError, match="points are more than 0"):
        client.execute("BOARD.ADD", "b", "ada", 0)


def test_the_cache_that_is_stale_while_it_is_refreshed(shown: LocalCluster) -> None:
    client = shown.client()
    get = lambda: client.execute("SWR.GET", "page")  # noqa: E731  # said often
    assert [get(), get()] == [[None, b"refresh"], [None, b"wait"]]
    assert client.execute("SWR.SET", "page", "one", 1000, 10_000) in (True, "OK")
    assert get() == [b"one", b"fresh"]
    shown.advance(milliseconds=1000)
    assert [get(), get()] == [[b"one", b"refresh"], [b"one", b"stale"]]
    shown.advance(seconds=2)  # who was to refresh it is gone
    assert get() == [b"one", b"refresh"]
    client.execute("SWR.SET", "page", "two", 1000, 10_000)
    assert get() == [b"two", b"fresh"]
    shown.advance(seconds=11)
    assert get() == [None, b"refresh"]
    shown.advance(seconds=2)
    assert client.execute("EXISTS", "page") == 0
