"""The command line in the hands of a newcomer: options in the wrong place, bad values, starts that fail."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, KACHE, Cluster, until
from ports import free_port

import kache as kache_package


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as running:
        yield running


def kache(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("KACHE_")}
    return subprocess.run(
        [*KACHE, *arguments], env={**own, **environment}, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


# Options and data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("set", "k", "v", "--port", "1"), "--port"),
        (("set", "k", "v", "--port=1"), "--port"),
        (("set", "k", "v", "-p", "1"), "-p"),
        (("get", "k", "-p1"), "-p"),
        (("rpush", "l", "v", "--json"), "--json"),
        (("exec", "rpush", "l", "v", "-n", "3"), "-n"),
        (("exec", "rpush", "l", "v", "--password", "sesame"), "--password"),
        (("set", "-5", "v", "--host", "x"), "--host"),
        (("set", "k", "v", "--help"), "--help"),
    ],
)
def test_an_option_behind_the_data_is_refused(cluster: Cluster, arguments: tuple[str, ...], option: str) -> None:
    cluster.request("flushall")
    done = cluster.kache(*arguments, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"kache: The option '{option}' comes too late: put it right after `kache {arguments[0]}`, "
        f"or put -- before the data if it is data, too. See `kache {arguments[0]} --help`.\n"
    )
    assert cluster.request("dbsize") == 0


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (("set", "k", "-5"), b"-5"),
        (("set", "k", "--", "-5"), b"-5"),
        (("set", "k", "--", "--port"), b"--port"),
        (("set", "--", "k", "-p"), b"-p"),
        (("set", "--", "k", "--"), b"--"),
        (("set", "k", "-"), b"-"),
        (("set", "k", "-next"), b"-next"),
        (("set", "k", "-path"), b"-path"),
        (("set", "k", "--other"), b"--other"),
        (("exec", "set", "k", "-1.5"), b"-1.5"),
        (("exec", "--", "set", "k", "--json"), b"--json"),
        (("set", "--raw", "-n", "0", "k", "v"), b"v"),
        (("set", "-n0", "--timeout=5", "k", "v"), b"v"),
    ],
)
def test_data_with_a_dash(cluster: Cluster, arguments: tuple[str, ...], stored: bytes) -> None:
    cluster.request("del", "k")
    cluster.kache(*arguments)
    assert cluster.request("get", "k") == stored


def test_the_first_word_of_data(cluster: Cluster) -> None:
    for word in ("-5", "-.5", "-inf", "-"):
        assert cluster.kache("echo", word).stdout == f"{word}\n"
    for arguments, piece in (
        (
            ("get", "--prot", "1", "k"),
            "No such option '--prot'. Did you mean '--port'? Put -- before it if it is data.",
        ),
        (("get", "-a", "sesame", "k"), "No such option '-a'."),
        (("get", "-p"), "requires an argument"),
        (("-p", "1", "get", "k"), "options go after the name of a command"),
        (("cluster", "--port", "1", "status"), "options go after the name of a command"),
    ):
        done = cluster.kache(*arguments, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert piece in done.stderr


def test_bad_values_are_named() -> None:
    for arguments, environment, piece in (
        (("ping", "--port", "abc"), {}, "must be a whole number, from 1 to 65535, not 'abc'."),
        (("ping", "--tls", "--cacert", "nofile"), {}, "--cacert nofile holds no certificates that can be read: "),
        (("ping",), {"KACHE_PORT": "abc"}, "not 'abc' (the variable KACHE_PORT)."),
        (("cluster", "status"), {"KACHE_PORT": "0"}, "not '0' (the variable KACHE_PORT)."),
        (("ping", "--host", ""), {}, "must be a name or an address, not empty"),
        (("get", "--db", "16", "k"), {}, "must be a whole number, from 0 to 15, not '16'."),
        (("stats", "--shard", "-1"), {}, "must be a whole number, at least 0, not '-1'."),
        (("cluster", "restart", "--shard", "0", "--router"), {}, "--shard and --router exclude each other."),
        (("commands", "gett"), {}, "There is no command 'gett'. Did you mean 'get'?"),
    ):
        done = kache(*arguments, **environment)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert piece in done.stderr


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    for host in ("::1", "[::1]"):
        done = kache("ping", "--host", host, "--port", "1")
        assert done.returncode == 3
        assert done.stderr.startswith("kache: No cluster answers at [::1]:1: ")


def test_nothing_to_listen_to() -> None:
    for command in (("subscribe", "news"), ("monitor",)):
        done = kache(*command, "--port", "1")
        assert done.returncode == 3
        assert done.stderr == "kache: No cluster answers at 127.0.0.1:1: Connection refused.\n"


def test_closed_and_full_streams(cluster: Cluster) -> None:
    environment = {**cluster.environment, "KACHE_PORT": str(cluster.port)}
    for redirection, status in (("<&-", 0), (">&-", 0), ("> /dev/full", 1)):
        if "full" in redirection and not os.path.exists("/dev/full"):
            continue
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *KACHE, "set", "-x", "k"], env=environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == status, (redirection, done)
        assert "Traceback" not in done.stderr


def test_help_says_what_the_status_means() -> None:
    for arguments in ([], ["cluster"], ["exec"], ["get"]):
        assert "3 no cluster there" in " ".join(kache(*arguments, "--help").stdout.split()), arguments
    order = re.findall(r"^  (\w+)  ", kache("cluster", "--help").stdout, re.MULTILINE)
    assert order == ["start", "status", "stop", "restart", "reload", "settings", "check"]


# Starting ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not has_ipv6(), reason="the loopback of this machine has no IPv6 address")
def test_the_ready_line_names_every_address() -> None:
    with Cluster(1, bind="127.0.0.1,::1") as cluster:
        assert f" ready on 127.0.0.1:{cluster.port}, [::1]:{cluster.port}: 1 shard" in cluster.ready_line
        shown = cluster.kache("cluster", "status").stdout
        assert f" on 127.0.0.1:{cluster.port}, [::1]:{cluster.port}, up " in shown
        assert cluster.kache("ping", "--host", "[::1]").stdout.startswith("PONG")


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def taken_port() -> socket.socket:
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen()
    return busy


def start_detached(folder: Path, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*KACHE, "cluster", "start", "--detach", "--shards=1", f"--port={port}", f"--dir={folder}", *options]
    return subprocess.run(
        command, env=os.environ | {"KACHE_RUN_DIR": str(folder / "run")}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_a_detached_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with taken_port() as busy:
        done = start_detached(tmp_path, busy.getsockname()[1])
    assert done.returncode == 1
    assert " is in use" in done.stderr
    assert tree(tmp_path) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "own.log").write_text("earlier\n")
    with taken_port() as busy:
        assert start_detached(tmp_path, busy.getsockname()[1], "--logfile=own.log").returncode == 1
    assert tree(tmp_path) == ["own.log", "run"]
    assert (tmp_path / "own.log").read_text().startswith("earlier\n")


DETACHED = """
import os, sys, time
from kache.cluster import detach
from kache.config.settings import Config
from kache.errors import KacheError
from kache.cluster.resources import Resources

def supervise(config, on_ready):
    resources = Resources(config, os.environ)
    print(*(f"line {number}" for number in range(20)), sep="\\n", flush=True)
    match sys.argv[1]:
        case "refused":
            resources.leave()
            raise KacheError("It cannot be.")
        case "error":
            raise OSError(24, "Too many open files")
        case "killed":
            os.kill(os.getpid(), 9)
    time.sleep(60)

detach.PATIENCE_SECONDS = 0.3 if sys.argv[1] == "late" else 30.0
sys.exit(detach.detached(Config(port=int(sys.argv[2]), shards=1), supervise))
"""


def detached(folder: Path, case: str) -> subprocess.Popen[str]:
    port = free_port()
    return subprocess.Popen(
        [sys.executable, "-c", DETACHED, case, str(port)], env=os.environ | {"KACHE_RUN_DIR": str(folder / "run")},
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("refused", "It cannot be."),
        ("error", "The cluster ended by an error: [Errno 24] Too many open files."),
        ("killed", "The cluster ended before it was ready."),
        ("late", "The cluster was not ready within 0.3 s and was ended."),
    ],
)
def test_a_detached_start_that_fails_shows_its_log(tmp_path: Path, case: str, reason: str) -> None:
    said, complaint = (starting := detached(tmp_path, case)).communicate(timeout=DEADLINE)
    assert (starting.returncode, said) == (1, "")
    first, second, *lines = complaint.splitlines()
    assert (first, second, len(lines)) == (f"kache: {reason}", "The end of its log:", 10)
    assert lines[-1].strip() == ("OSError: [Errno 24] Too many open files" if case == "error" else "line 19")
    assert tree(tmp_path) == []


def test_an_interrupted_detached_start_ends_its_cluster(tmp_path: Path) -> None:
    starting = detached(tmp_path, "waits")
    until(lambda: any("line 19" in log.read_text() for log in tmp_path.glob("*.log")), "its first words")
    starting.send_signal(signal.SIGINT)
    said = starting.communicate(timeout=DEADLINE)
    assert starting.returncode != 0, said
    assert tree(tmp_path) == []


def test_a_start_that_fails_leaves_no_lock(tmp_path: Path) -> None:
    with taken_port() as free:
        port = free.getsockname()[1]
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    (run / str(port)).write_text("in the way of its directory")
    done = kache("cluster", "start", f"--port={port}", cwd=tmp_path, KACHE_RUN_DIR=str(run))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert tree(run) == [str(port)]
    (run / str(port)).unlink()
    (run / f"{port}.lock").mkdir()
    done = kache("cluster", "start", f"--port={port}", cwd=tmp_path, KACHE_RUN_DIR=str(run))
    assert done.stderr == f"kache: The lock {run}/{port}.lock cannot be made: Is a directory.\n"


def test_sources_in_the_way_of_what_is_installed_are_named(tmp_path: Path) -> None:
    """`python -m kache` in a clone finds the clone first, even where the package is installed."""
    sources = Path(kache_package.__file__).parent
    for name in ("__init__.py", "__main__.py", "wire/__init__.py"):
        (tmp_path / "kache" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "kache" / name).write_bytes((sources / name).read_bytes())
    done = kache("ping", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"kache: {tmp_path} holds sources that are not compiled.")
    assert done.stderr.count("\n") == 1


def test_a_detached_start_warns_on_the_terminal(tmp_path: Path) -> None:
    base = {"KACHE_RUN_DIR": str(tmp_path / "run"), "KACHE_MAX_MEM": "1"}
    done = kache("cluster", "start", "--detach", "--port=0", "--shards=1", "--maxmemory=900tb", cwd=tmp_path, **base)
    assert done.returncode == 0, done.stderr
    try:
        first, second = done.stderr.splitlines()
        assert re.match(
            r"kache: Warning: maxmemory 900tb is more than the \S+ of memory that this cluster can have", first
        )
        assert second == "kache: Warning: the variable KACHE_MAX_MEM is no setting of Kache; KACHE_MAXMEMORY is one."
    finally:
        port = done.stdout.split(" ready on ")[1].split(": ")[0].rpartition(":")[2]
        assert kache("cluster", "stop", "--port", port, **base).returncode == 0


# Ctrl-C -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_in_bench_shows_what_was_measured(cluster: Cluster, processes: str) -> None:
    bench = subprocess.Popen(
        [*KACHE, "bench", "-c", "4", "--seconds", "120", "--warmup", "0.1", "--keys", "100", "--processes", processes],
        env={**cluster.environment, "KACHE_PORT": str(cluster.port)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        before = _executed(cluster)
        # Long after the warm-up, as its commands show.
        until(lambda: _executed(cluster) > before + 50_000, "the load", 110)
        os.killpg(bench.pid, signal.SIGINT)
        output, errors = bench.communicate(timeout=DEADLINE)
    finally:
        if bench.poll() is None:
            bench.kill()
            bench.communicate()
    assert bench.returncode == 130, errors
    assert re.search(r"^[\d,]+ requests/s", output, re.MULTILINE), output
    assert re.search(r"note: interrupted after [\d.]+ s; 120 s were wanted", output)
    assert "Traceback" not in errors


def _executed(cluster: Cluster) -> int:
    return int(cluster.request("info", "stats").decode().split("total_commands_processed:")[1].split()[0])


# Users --------------------------------------------------------------------------------------------------------------


def test_any_user_has_the_command_line() -> None:
    """`default` may be off: by --user or KACHE_USER every command, the shell and a subscription are somebody else's."""
    with Cluster(1) as cluster:
        port = str(cluster.port)
        cluster.request("acl", "setuser", "web", "on", ">sesame", "~*", "&*", "+@all")
        cluster.request("acl", "setuser", "open", "on", "nopass", "~*", "+@all")
        web = {"KACHE_PORT": port, "KACHE_USER": "web", "KACHE_PASSWORD": "sesame"}
        for arguments in (["set", "k", "v"], ["ping"], ["stats"], ["hot"], ["top", "--once", "--interval", "0.2"]):
            done = kache(*arguments, **web)
            assert done.returncode == 0, (arguments, done.stderr)
        assert kache("exec", "acl", "whoami", **web).stdout == "web\n"
        assert kache("exec", "--user", "open", "acl", "whoami", KACHE_PORT=port).stdout == "open\n"
        shell = subprocess.run(
            [*KACHE, "shell"],
            env={**os.environ, **web},
            input="acl whoami\n",
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert shell.stdout == "web\n"
        wrong = kache("get", "--password", "open", "k", **web)
        assert (wrong.returncode, "WRONGPASS" in wrong.stderr) == (1, True)
        listening = subprocess.Popen(
            [*KACHE, "subscribe", "--count", "1", "news"], env={**os.environ, **web}, stdout=subprocess.PIPE, text=True
        )
        try:
            until(lambda: cluster.request("publish", "news", "hello") == 1, "subscribed")
            assert listening.communicate(timeout=DEADLINE)[0] == "news: hello\n"
        finally:
            listening.kill()
            listening.wait()
