"""No secret is shown anywhere: canaries are given in every way there is, everything is used, and everything is searched."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import KACHE, Cluster, Connection, encode, until

pytestmark = pytest.mark.once

CANARY = "canary-4f1d0c7e9b"
SECOND = "canary-second-8a2e"
WRONG = "canary-wrong-31bc"
CANARIES = (CANARY, SECOND, WRONG)


@contextlib.contextmanager
def guarded(way: str, folder: Path) -> Iterator[Cluster]:
    """A cluster whose password came in one of the ways there are, logging everything to a file."""
    options: dict[str, object] = {"loglevel": "debug", "logfile": folder / "log", "slowlog_log_slower_than": 0}
    environment: dict[str, str] = {}
    if way == "option":
        options["requirepass"] = CANARY
    elif way == "variable":
        environment["KACHE_REQUIREPASS"] = CANARY
    elif way == "file":
        (folder / "password").write_text(CANARY + "\n")
        options["requirepass_file"] = folder / "password"
    else:
        (folder / "kache.toml").write_text(f'requirepass = "{CANARY}"\n')
        options["config"] = folder / "kache.toml"
    with Cluster(2, routers=2, environment=environment, dir=folder, **options) as cluster:
        yield cluster


def use(cluster: Cluster) -> list[str]:
    """Everything that shows something, by clients of both kinds of luck; returns what was shown."""
    shown: list[object] = []
    with Connection(cluster.port) as stranger:
        shown += [stranger.request("get", "k"), stranger.request("auth", WRONG), stranger.request("auth", "me", WRONG)]
        shown += [
            stranger.request("hello", 3, "auth", "default", WRONG, "setname", "s"),
            stranger.request("hello", "9"),
        ]
    watcher = Connection(cluster.port)
    assert [watcher.request("auth", CANARY), watcher.request("monitor")] == ["OK", "OK"]
    with Connection(cluster.port) as client:
        client.request("auth", CANARY)
        for command in (
            ("hello", "2", "auth", "default", CANARY),
            ("set", "k", "v"),
            ("config", "set", "requirepass", SECOND),
            ("config", "set", "requirepass", CANARY, "nosuch", "1"),
            ("config", "set", "requirepass"),
            ("auth", SECOND, SECOND, SECOND),
            ("multi",), ("set", "k", "w"), ("config", "set", "requirepass", SECOND), ("exec",),
            ("acl", "setuser", "ada", "on", f">{SECOND}", "+@all", "~*", "&*"),
            ("acl", "setuser", "ada", f"<{WRONG}"),
            ("acl", "setuser", "ada", f"(>{WRONG})"),
            ("acl", "setuser", "ada", f">{SECOND}", "+nosuch"),
            ("acl", "list"), ("acl", "getuser", "ada"),
            ("acl", "dryrun", "ada", "config", "set", "requirepass", SECOND),
            ("acl", "dryrun", "ada", "hello", "3", "auth", "ada", SECOND),
            ("command", "getkeys", "auth", SECOND), ("command", "getkeysandflags", "hello", "3", "auth", "a", SECOND),
            ("hello", "3", "setname", "auth", "auth", "ada", SECOND), ("hello", "2", "auth", "default", SECOND, "auth", "default", CANARY),
            ("multi",), ("auth", "ada", SECOND), ("set", "k", "x"), ("auth", CANARY), ("exec",),
            ("config", "set", "requirepas", SECOND), ("config", "set", "maxmemory", "requirepass", SECOND),
            ("acl", "log"),
            ("config", "get", "*"),
            ("config", "get", "requirepass*"),
            ("config", "rewrite"),
            ("client", "list"),
            ("client", "info"),
            ("acl", "whoami"),
            ("info", "everything"),
            ("slowlog", "get", "-1"),
            ("latency", "doctor"),
            ("memory", "doctor"),
            ("command", "docs", "auth"),
            ("debug", "help"),
        ):  # fmt: skip
            shown.append(client.request(*command))
        for broken in (b"*2\r\n$4\r\nauth\r\n$-9\r\n", b"auth '" + WRONG.encode() + b"\r\n"):
            with Connection(cluster.port) as other:
                other.socket.sendall(broken)
                with contextlib.suppress(ConnectionError):
                    shown.append(other.read())
        for role, index in (("shard", 1), ("router", 1)):
            killed = cluster.pid_of(role, index)
            cluster.kill(killed)
            cluster.replaced(role, index, killed)
        client.socket.sendall(encode(("auth", SECOND)) + encode(("slowlog", "get", "-1")))
    shown += watched(watcher)
    for words in (("cluster", "status", "--json"), ("cluster", "status"), ("cluster", "settings")):
        found = subprocess.run(
            [*KACHE, *words, *([] if words[1] == "settings" else [f"--port={cluster.port}"])],
            env=cluster.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        shown += [found.stdout, found.stderr]
    return [str(each) for each in shown]


def watched(watcher: Connection) -> list[object]:
    """What MONITOR has shown before its router was killed, or until it rests."""
    watcher.socket.settimeout(1.0)
    found: list[object] = []
    with contextlib.suppress(ConnectionError, TimeoutError), watcher:
        while True:
            found.append(watcher.read())
    assert any("(redacted)" in str(line) for line in found), found
    return found


def pids(cluster: Cluster) -> list[int]:
    """The supervisor and its children."""
    found = cluster.status()
    return [found["pid"], *(child["pid"] for child in found["children"])]


def of_processes(cluster: Cluster) -> Iterator[tuple[str, bytes]]:
    """What other users see of the processes."""
    for pid in pids(cluster):
        yield f"cmdline of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()
        yield f"comm of {pid}", Path(f"/proc/{pid}/comm").read_bytes()


@pytest.mark.parametrize("way", ["option", "variable", "file", "toml"])
def test_no_secret_is_shown(way: str, tmp_path: Path) -> None:
    with guarded(way, tmp_path) as cluster:
        until(lambda: all(CANARY.encode() not in text for _, text in of_processes(cluster)), "titles are set")
        shown = use(cluster)
        assert any("(redacted)" in text for text in shown)  # the slow log has seen them
        found = [text for text in shown if any(canary in text for canary in CANARIES)]
        found += [name for name, text in of_processes(cluster) if any(each.encode() in text for each in CANARIES)]
        mine = {"password", "kache.toml"}
        for path in [*tmp_path.rglob("*"), *cluster.directory.rglob("*")]:
            if path.is_file() and path.name not in mine:
                data = path.read_bytes()
                found += [f"{path.name}: {each}" for each in CANARIES if each.encode() in data]
        assert found == []
        assert (tmp_path / "log").stat().st_size > 1000  # there was something to search


def test_a_password_given_by_a_variable_is_not_handed_on(tmp_path: Path) -> None:
    """Whatever is started inside gets the variables of the process, not those it was started with."""
    script = (
        "import os, sys\n"
        "from kache.cluster import supervisor\n"
        "class Seen(Exception): pass\n"
        "def run(self):\n"
        "    assert self.config.requirepass == 'secret', 'it was read'\n"
        "    again = self._read()\n"
        "    assert again.requirepass == 'secret', 'a reload reads it again'\n"
        "    print(sorted(name for name in os.environ if 'REQUIREPASS' in name))\n"
        "    return 0\n"
        "supervisor.Supervisor.run = run\n"
        "from kache.cli.main import run\n"
        "sys.argv = ['kache', 'cluster', 'start', '--port=0']\n"
        "sys.exit(run())\n"
    )
    environment = os.environ | {"KACHE_REQUIREPASS": "secret", "KACHE_RUN_DIR": str(tmp_path)}
    found = subprocess.run(
        [KACHE[0], "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr


@pytest.mark.parametrize(("given", "soft"), [("no", "0"), ("yes", "unlimited")])
def test_core_dumps(given: str, soft: str) -> None:
    with Cluster(1, core_dumps=given, command=["prlimit", "--core=unlimited", *KACHE]) as cluster:
        for pid in pids(cluster):
            limits = Path(f"/proc/{pid}/limits").read_text()
            line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
            assert line.split()[4] == soft, (pid, line)


def test_only_the_owner_and_root_converse_with_the_supervisor() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to become another user")
    with Cluster(1) as cluster:
        socket_path = cluster.directory / "run" / str(cluster.port) / "control.sock"
        for path in (socket_path, *list(socket_path.parents)[:3]):
            path.chmod(0o777)  # what an administrator may do by mistake
        script = (
            "import os, socket, sys\n"
            f"os.setuid({65534})\n"
            "s = socket.socket(socket.AF_UNIX); s.settimeout(20)\n"
            "try:\n"
            f"    s.connect({str(socket_path)!r}); print(s.recv(10))\n"
            "except ConnectionError: print(b'')\n"
        )
        found = subprocess.run([KACHE[0], "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert found.stdout.strip() == "b''", found
        for path in list(socket_path.parents)[:3]:
            path.chmod(0o700)
        assert json.loads(cluster.kache("cluster", "status", "--json").stdout)["port"] == cluster.port
