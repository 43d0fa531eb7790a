"""Changes of users over all processes: OK means that nothing passes by the old rights, whatever dies meanwhile; and where
users are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEADLINE, KACHE, Cluster, Connection, until

from kache.errors import CommandError

pytestmark = pytest.mark.once

NO_SET = CommandError("NOPERM this user has no permissions to run the 'set' command")


class Writer(threading.Thread):
    """A client that sets its keys to rising numbers, in pipelines, until it is told to stop."""

    KEYS = 20

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__()
        self.connection = cluster.connect()
        assert self.connection.request("auth", "writer", "pw") == "OK"
        self.names = [f"{number}:{key}" for key in range(self.KEYS)]
        self.stopped = threading.Event()
        self.refused = threading.Event()
        """A whole pipeline was refused."""
        self.passed = threading.Event()
        """A whole pipeline was executed."""
        self.strange: list[object] = []

    def run(self) -> None:
        value = 0
        while not self.stopped.is_set():
            value += 1
            self.connection.send(*[("set", name, value) for name in self.names])
            replies = self.connection.read_many(self.KEYS)
            if all(reply == NO_SET for reply in replies):
                self.refused.set()
            elif all(reply == "OK" for reply in replies):
                self.passed.set()
            else:
                self.strange += [reply for reply in replies if reply not in ("OK", NO_SET)]

    def stop(self) -> None:
        self.stopped.set()
        self.join()
        self.connection.close()


@pytest.fixture(scope="module")
def wide() -> Iterator[Cluster]:
    """Three routers, so that clients of one change what those of the others may do."""
    with Cluster(3, routers=3) as running:
        yield running


def test_behind_ok_not_one_command_passes_on_any_connection(wide: Cluster) -> None:
    with wide.connect() as admin:
        admin.request("acl", "setuser", "writer", "on", ">pw", "+set", "~*")
        writers = [Writer(wide, number) for number in range(6)]
        names = [name for writer in writers for name in writer.names]
        for writer in writers:
            writer.start()
        try:
            for _ in range(8):
                for writer in writers:
                    assert writer.passed.wait(DEADLINE)
                assert admin.request("acl", "setuser", "writer", "-set") == "OK"
                for writer in writers:
                    writer.refused.clear()
                at_once = admin.request("mget", *names)
                for writer in writers:
                    assert writer.refused.wait(DEADLINE)
                assert admin.request("mget", *names) == at_once
                for writer in writers:
                    writer.passed.clear()
                assert admin.request("acl", "setuser", "writer", "+set") == "OK"
        finally:
            for writer in writers:
                writer.stop()
        assert [writer.strange for writer in writers] == [[]] * len(writers)


def test_a_deleted_user_is_gone_from_every_router(wide: Cluster) -> None:
    with wide.connect() as admin:
        admin.request("acl", "setuser", "many", "on", ">pw", "+ping")
        clients = [wide.connect() for _ in range(12)]
        assert [client.request("auth", "many", "pw") for client in clients] == ["OK"] * 12
        assert admin.request("acl", "deluser", "many") == 1
        for client in clients:
            with pytest.raises((ConnectionError, OSError)):
                client.request("ping")
            client.close()


def test_the_log_is_that_of_all_routers(wide: Cluster) -> None:
    with wide.connect() as admin:
        admin.request("hello", 3)
        admin.request("acl", "log", "reset")
        admin.request("acl", "setuser", "many", "on", ">pw", "+ping")
        for number in range(12):
            with wide.connect() as client:
                client.request("auth", "many", "pw")
                client.request("get", number)
        found = admin.request("acl", "log", 100)
        assert [(entry[b"count"], entry[b"object"]) for entry in found] == [(12, b"get")]
        assert admin.request("acl", "log", "reset") == "OK"
        assert admin.request("acl", "log") == []


def test_two_administrators_at_once_both_have_their_way(wide: Cluster) -> None:
    def change(number: int) -> None:
        with wide.connect() as admin:
            for count in range(10):
                assert admin.request("acl", "setuser", "shared", f"~{number}:{count}") == "OK"

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with wide.connect() as admin:
        line = next(line for line in admin.request("acl", "list") if line.startswith(b"user shared "))
        assert all(f"~{number}:{count} ".encode() in line for number in range(4) for count in range(10))


def test_who_dies_comes_back_with_the_users_of_today(wide: Cluster) -> None:
    with wide.connect() as admin:
        admin.request("acl", "setuser", "later", "on", ">pw", "+ping")
    for role, index in (("router", 0), ("router", 1), ("router", 2), ("shard", 0)):
        before = wide.pid_of(role, index)
        wide.kill(before)
        until(lambda r=role, i=index, b=before: wide.pid_of(r, i) not in (0, b), "that it is started again")
    until(lambda: all(child["state"] == "up" for child in wide.status()["children"]), "that all are up")
    for _ in range(12):
        with wide.connect() as client:
            assert client.request("auth", "later", "pw") == "OK"
            assert client.request("ping") == "PONG"
            assert "NOPERM" in str(client.request("get", "a"))


def test_a_router_that_was_stopped_does_not_wake_up_with_old_rights() -> None:
    with Cluster(2, routers=2) as cluster:
        with cluster.connect() as admin:
            admin.request("acl", "setuser", "writer", "on", ">pw", "+set", "~*")
        clients = [cluster.connect() for _ in range(8)]
        assert [client.request("auth", "writer", "pw") for client in clients] == ["OK"] * 8
        stopped = cluster.pid_of("router", 1)
        cluster.kill(stopped, signal.SIGSTOP)
        with _connected_to_the_other(cluster, stopped) as admin:
            answer = admin.request("acl", "setuser", "writer", "-set")
            assert "router 1 did not follow in time and is started again" in str(answer)
        until(lambda: cluster.pid_of("router", 1) not in (0, stopped), "that it is started again")
        for client in clients:
            try:
                assert client.request("set", "a", 1) == NO_SET
            except (ConnectionError, OSError):
                pass  # it was the stopped one's
            client.close()
        until(lambda: cluster.child("router", 1)["state"] == "up", "that it serves")
        cluster.serves()
        assert cluster.request("exists", "a") == 0


def _connected_to_the_other(cluster: Cluster, stopped: int) -> Connection:
    """A connection to a router that answers: the system may give one to the router that is stopped."""
    while True:
        connection = Connection(cluster.port, 1.0)
        try:
            assert connection.request("ping") == "PONG"
        except OSError:
            connection.close()
            continue
        connection.socket.settimeout(DEADLINE)
        return connection


# Where users are kept -------------------------------------------------------------------------------------------------


def users_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "users.acl"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(tmp_path: Path, *options: str) -> str:
    """Why a cluster does not start."""
    done = subprocess.run(
        [*KACHE, "cluster", "start", "--shards=1", "--port=0", f"--dir={tmp_path}", *options],
        env={**os.environ, "KACHE_RUN_DIR": str(tmp_path / "run")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_file_of_users_is_read_written_and_read_again(tmp_path: Path) -> None:
    path = users_file(tmp_path, "# users\nuser default on nopass +@all ~* &*\nuser alice on >pw +get +ping ~a*\n")
    with Cluster(2, aclfile=path) as cluster:
        with cluster.connect() as admin, cluster.connect() as alice, cluster.connect() as bob:
            assert alice.request("auth", "alice", "pw") == "OK"
            assert alice.request("get", "a") is None
            admin.request("acl", "setuser", "bob", "on", ">pw", "+ping")
            assert bob.request("auth", "bob", "pw") == "OK"
            assert admin.request("acl", "save") == "OK"
            assert path.stat().st_mode & 0o777 == 0o600
            assert b"user bob on #" in path.read_bytes()
            path.write_text("user alice on >pw +ping\nuser bob nonsense\n")
            assert "users.acl:2: Error in ACL SETUSER modifier 'nonsense'" in str(admin.request("acl", "load"))
            assert alice.request("get", "a") is None
            path.write_text("user alice on >pw +ping\n")
            assert admin.request("acl", "load") == "OK"
            assert admin.request("acl", "users") == [b"alice", b"default"]
            # Who has lost nothing but rights stays; who is gone is closed.
            assert alice.request("ping") == "PONG"
            assert alice.request("get", "a") == CommandError(
                "NOPERM this user has no permissions to run the 'get' command"
            )
            with pytest.raises(ConnectionError):
                bob.request("ping")
        for role in ("router", "shard"):
            before = cluster.pid_of(role)
            cluster.kill(before)
            until(lambda r=role, b=before: cluster.pid_of(r) not in (0, b), "that it is started again")
        until(lambda: all(child["state"] == "up" for child in cluster.status()["children"]), "that all are up")
        assert cluster.request("acl", "users") == [b"alice", b"default"]


def test_without_a_file_there_is_nothing_to_load_or_save(tmp_path: Path) -> None:
    with Cluster(1) as cluster, cluster.connect() as admin:
        for word in ("load", "save"):
            assert "not configured to use an ACL file" in str(admin.request("acl", word))


def test_users_in_the_configuration_are_written_back(tmp_path: Path) -> None:
    config = tmp_path / "kache.toml"
    config.write_text('# settings\ntimeout = 0\n\n[users]\n# services\nalice = "on >pw +ping ~a*"\n')
    with Cluster(1, config=config) as cluster, cluster.connect() as admin:
        assert b"user alice on #" in admin.request("acl", "list")[0]
        admin.request("acl", "setuser", "b.ob", "on", "nopass", "+get", '~"quoted"')
        admin.request("config", "set", "maxmemory-samples", "7")
        assert admin.request("config", "rewrite") == "OK"
    text = config.read_text()
    assert text.index("maxmemory-samples = 7") < text.index("[users]") < text.index("# services")
    with Cluster(1, config=config) as cluster, cluster.connect() as admin:
        assert admin.request("acl", "users") == [b"alice", b"b.ob", b"default"]
        assert admin.request("acl", "list")[1] == b'user b.ob on nopass ~"quoted" resetchannels -@all +get'
        assert admin.request("config", "get", "maxmemory-samples") == [b"maxmemory-samples", b"7"]
        admin.request("acl", "setuser", "default", ">secret")
        assert admin.request("config", "rewrite") == "OK"
    assert '"default" = "on #' in config.read_text()


def test_what_is_wrong_with_the_users_keeps_the_cluster_from_starting(tmp_path: Path) -> None:
    path = users_file(tmp_path, "user alice on\nuser alice off\n")
    assert "users.acl:2: Duplicate user 'alice' found" in refusal(tmp_path, f"--aclfile={path}")
    path.chmod(0o644)
    assert "chmod 600" in refusal(tmp_path, f"--aclfile={path}")
    users_file(tmp_path, "user alice on\n")
    assert "give it the rule '>PASSWORD' there instead" in refusal(
        tmp_path, f"--aclfile={path}", "--requirepass=secret"
    )
    config = tmp_path / "kache.toml"
    config.write_text('[users]\nalice = "on nonsense"\n')
    assert "[users] alice: Error in ACL SETUSER modifier 'nonsense'" in refusal(tmp_path, f"--config={config}")
    assert "where are the users?" in refusal(tmp_path, f"--config={config}", f"--aclfile={path}")
    assert "needs no password is refused" in refusal(tmp_path, f"--aclfile={path}", "--bind=0.0.0.0")
