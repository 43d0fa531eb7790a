"""TLS of a real cluster: both protocols, ends of connections, certificates, hostile peers, new certificates."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority, TlsCluster
from cluster import DEADLINE, Connection, encode, until
from ports import free_ports

from kache import AsyncClient, Client, ConnectError
from kache.errors import CommandError


@pytest.fixture(scope="module")
def cluster() -> Iterator[TlsCluster]:
    with TlsCluster(2, routers=2) as cluster:
        yield cluster


def info(cluster: TlsCluster, field: str) -> str:
    """A field of INFO TLS, asked over the plain port."""
    text = bytes(cluster.request("info", "tls")).decode()
    return next(line.partition(":")[2] for line in text.splitlines() if line.startswith(field + ":"))


class Wire:
    """A TLS client whose sealed bytes are in the hands of the test."""

    def __init__(self, cluster: TlsCluster, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", cluster.tls_port), DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or cluster.authority.context()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> bytes:
        """The first message of a handshake."""
        with pytest.raises(ssl.SSLWantReadError):
            self.ssl.do_handshake()
        return self.outgoing.read()

    def shake(self, step: int = 1 << 20) -> None:
        while True:
            try:
                self.ssl.do_handshake()
                return
            except ssl.SSLWantReadError:
                self.send(step)
                self.receive()
            finally:
                self.send(step)

    def send(self, step: int = 1 << 20) -> None:
        data = self.outgoing.read()
        for at in range(0, len(data), step):
            self.socket.sendall(data[at : at + step])

    def receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("closed")
        self.incoming.write(data)

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                found += self.ssl.read(size - len(found))
            except ssl.SSLWantReadError:
                self.receive()
        return found

    def read_to_close_notify(self) -> bytes:
        """What has come; SSLWantReadError when there is no end."""
        found = b""
        while True:
            try:
                data = self.ssl.read(1 << 16)
            except ssl.SSLZeroReturnError:
                return found
            if not data:
                return found
            found += data


def test_both_protocols_and_both_clients(cluster: TlsCluster) -> None:
    context = cluster.authority.context()
    assert cluster.secure().request("set", "resp", "1") == "OK"
    with Client("localhost", cluster.tls_port, tls=context) as client:
        client.set("binary", b"2")
        assert client.get("resp") == b"1"
        assert client.mget("resp", "binary", "none") == [b"1", b"2", None]
        large = random.Random(1).randbytes(30 << 20)
        client.set("large", large)
        assert client.get("large") == large
        with client.pipeline() as pipe:
            for number in range(5000):
                pipe.set(f"p:{number}", number)
            assert len(pipe.execute()) == 5000

    async def ask() -> object:
        async with AsyncClient(
            "127.0.0.1", cluster.tls_port, tls=True, ca=str(cluster.authority.ca_file), server_hostname="localhost"
        ) as client:
            await asyncio.gather(*(client.set(f"a:{n}", n) for n in range(200)))
            return await client.mget("binary", "a:7")

    assert asyncio.run(ask()) == [b"2", b"7"]


def test_clients_verify_who_answers(cluster: TlsCluster, tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="certificate"):
        Client.from_url(f"kaches://localhost:{cluster.tls_port}").ping()
    with pytest.raises(ConnectError, match=r"(?i)hostname mismatch"):
        Client(port=cluster.tls_port, tls=cluster.authority.context(), server_hostname="elsewhere").ping()
    other = Authority(tmp_path)

    async def ask() -> None:
        async with AsyncClient("localhost", cluster.tls_port, tls=other.context()) as client:
            await client.ping()

    with pytest.raises(ConnectError, match="certificate"):
        asyncio.run(ask())
    with pytest.raises(ConnectError):
        Client(port=cluster.port, tls=cluster.authority.context(), server_hostname="localhost").ping()


def test_listening_and_near_caches_over_tls(cluster: TlsCluster) -> None:
    context = cluster.authority.context()
    with Client("localhost", cluster.tls_port, tls=context, near_cache=100) as client, client.pubsub() as listening:
        listening.subscribe("news")
        client.execute("publish", "news", "x" * 50_000)
        message = next(iter(listening))
        assert (message.channel, len(message.data)) == (b"news", 50_000)
        client.set("near", "1")
        assert client.get("near") == b"1"
        cluster.request("set", "near", "2")
        until(lambda: client.get("near") == b"2", "the near cache hears of the change")


def test_the_command_line(cluster: TlsCluster) -> None:
    options = ("--host", "localhost", "--port", cluster.tls_port, "--tls")
    ca = ("--cacert", cluster.authority.ca_file)
    for more in ((), ("--ready",)):
        assert cluster.kache("ping", *more, *options, *ca).returncode == 0
    assert "OK" in cluster.kache("set", *options, *ca, "cli", "1").stdout
    assert cluster.kache("get", *options, "--insecure", "cli").stdout.strip() == "1"
    assert "commands" in cluster.kache("stats", *options, *ca).stdout
    refused = cluster.kache("get", *options, "cli", check=False)
    assert refused.returncode == 3 and "certificate" in refused.stderr and "Traceback" not in refused.stderr
    wrong = cluster.kache("get", "--host=localhost", f"--port={cluster.port}", "--tls", *ca, "cli", check=False)
    assert wrong.returncode == 3 and "Traceback" not in wrong.stderr


@pytest.mark.parametrize("step", [1, 7])
def test_a_stream_cut_into_pieces(cluster: TlsCluster, step: int) -> None:
    commands = b"".join(encode(("set", f"cut:{n}", "v" * n)) + encode(("get", f"cut:{n}")) for n in range(20))
    replies = b"".join(b"+OK\r\n$%d\r\n%s\r\n" % (n, b"v" * n) for n in range(20))
    with Wire(cluster) as wire:
        wire.shake(step)
        for at in range(0, len(commands), 50):
            wire.ssl.write(commands[at : at + 50])
        wire.send(step)
        assert wire.read(len(replies)) == replies


def test_what_is_sent_right_behind_the_handshake(cluster: TlsCluster) -> None:
    """The last message of the handshake, a pipeline, and the end of the input in one piece."""
    with Wire(cluster) as wire:
        wire.socket.sendall(wire.hello())
        while True:
            wire.receive()
            try:
                wire.ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        for _ in range(1000):
            wire.ssl.write(encode(("ping",)))
        with pytest.raises(ssl.SSLWantReadError):
            wire.ssl.unwrap()
        wire.socket.sendall(wire.outgoing.read())
        wire.socket.shutdown(socket.SHUT_WR)
        data = b""
        while piece := wire.socket.recv(1 << 16):
            data += piece
        wire.incoming.write(data)
        assert wire.read_to_close_notify() == b"+PONG\r\n" * 1000


@pytest.mark.parametrize("end", ["close_notify", "fin"])
def test_all_before_a_half_close_is_answered(cluster: TlsCluster, end: str) -> None:
    with Wire(cluster) as wire:
        wire.shake()
        for number in range(1000):
            wire.ssl.write(encode(("incr", f"half:{end}:{number % 7}")))
        if end == "close_notify":
            with pytest.raises(ssl.SSLWantReadError):
                wire.ssl.unwrap()
        wire.send()
        if end == "fin":
            wire.socket.shutdown(socket.SHUT_WR)
        data = b""
        while piece := wire.socket.recv(1 << 16):
            data += piece
        wire.incoming.write(data)
        assert wire.read_to_close_notify().count(b":") == 1000


def test_a_client_that_reads_late(cluster: TlsCluster) -> None:
    """Replies of 60 MB that nobody reads for a while, more than it may have unread."""
    value = "x" * 100_000
    reply = f"${len(value)}\r\n{value}\r\n".encode()
    with cluster.secure() as connection:
        connection.request("set", "late", value)
        requests = encode(("get", "late")) * 600
        # Not reading is the subject.
        assert connection.exchange(requests, len(reply) * 600, silent=0.3) == reply * 600


def test_large_pipelines_of_writes(cluster: TlsCluster) -> None:
    value = "y" * 50_000
    with cluster.secure() as connection:
        data = b"".join(encode(("set", f"w:{n % 10}", value)) for n in range(1000))
        assert connection.exchange(data, 5 * 1000) == b"+OK\r\n" * 1000


def test_sixty_connections_at_once_get_their_own(cluster: TlsCluster) -> None:
    draw = random.Random(4)
    connections = [cluster.secure() for _ in range(60)]
    expected: list[list[str]] = [[] for _ in connections]
    for _ in range(600):
        at = draw.randrange(60)
        text = f"{at}-" * draw.choice((1, 300, 9000))
        connections[at].send(("echo", text))
        expected[at].append(text)
    for at, connection in enumerate(connections):
        assert [bytes(reply).decode() for reply in connection.read_many(len(expected[at]))] == expected[at]
        connection.close()


GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\x16\x03\x01\xff\xff" + b"x" * 200,
    b"\x16\x03\x01\x00\x05hello",
    b"\x00" * 50,
)


def test_garbage_is_closed_and_disturbs_nobody(cluster: TlsCluster) -> None:
    before = len(cluster.log())
    with cluster.secure() as neighbour:
        for number in range(300):
            with socket.create_connection(("127.0.0.1", cluster.tls_port), DEADLINE) as sock:
                sock.sendall(GARBAGE[number % len(GARBAGE)])
                answer = b""
                try:
                    while piece := sock.recv(4096):
                        answer += piece
                except ConnectionResetError:
                    pass
                # An alert at most: never clear text.
                assert answer == b"" or answer[0] == 21, answer
            assert neighbour.request("echo", str(number)) == str(number).encode()
    assert int(info(cluster, "tls_failed_handshakes")) >= 300
    text = cluster.log()[before:]
    assert "Traceback" not in text
    assert 0 < text.count("no TLS with") <= 60, "one line each would fill a disk"


def test_broken_records_end_one_connection(cluster: TlsCluster) -> None:
    draw = random.Random(5)
    with cluster.secure() as neighbour:
        for number in range(60):
            with Wire(cluster) as wire:
                wire.shake()
                wire.ssl.write(encode(("ping",)))
                record = bytearray(wire.outgoing.read())
                record[draw.randrange(5, len(record))] ^= 1 << draw.randrange(8)
                wire.socket.sendall(record)
                with pytest.raises((ConnectionError, ssl.SSLError)):
                    wire.read(1)
            assert neighbour.request("echo", str(number)) == str(number).encode()


def test_tls_on_the_plain_port_is_closed(cluster: TlsCluster) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        cluster.authority.context().wrap_socket(
            socket.create_connection(("127.0.0.1", cluster.port), DEADLINE), server_hostname="localhost"
        )
    assert cluster.request("ping") == "PONG"


def test_every_other_client_is_killed_inside_one_pipeline(cluster: TlsCluster) -> None:
    connections = [cluster.secure() for _ in range(20)]
    ids = [connection.request("client", "id") for connection in connections]
    for connection in connections:
        connection.send(*[("echo", "z" * 20_000)] * 20)
    with cluster.secure() as killer:
        killer.send(*(("client", "kill", "id", id) for id in ids))
        assert killer.read_many(len(ids)) == [1] * len(ids)
        assert killer.request("ping") == "PONG"
    for connection in connections:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            while True:
                connection.read()
        connection.close()


@pytest.mark.parametrize("step", ["nothing", "hello", "shaken"])
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_who_leaves_in_the_middle_leaves_nothing(cluster: TlsCluster, step: str, end: str) -> None:
    for _ in range(30):
        wire = Wire(cluster)
        if step == "hello":
            wire.socket.sendall(wire.hello())
        elif step == "shaken":
            wire.shake()
            wire.ssl.write(encode(("get", "late")))
            wire.send()
        if end == "rst":
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.socket.close()
    until(lambda: info(cluster, "tls_connected_clients") == "0", "nobody is left")
    with cluster.secure() as connection:
        assert connection.request("ping") == "PONG"


def test_sessions_are_resumed(cluster: TlsCluster) -> None:
    context = cluster.authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    before = int(info(cluster, "tls_resumed_handshakes"))
    session, resumed = None, False
    for _ in range(300):  # a ticket is of one router; the system chooses
        plain = socket.create_connection(("127.0.0.1", cluster.tls_port), DEADLINE)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
            sock.sendall(encode(("ping",)))
            assert sock.recv(100) == b"+PONG\r\n"
            resumed = bool(sock.session_reused)
            session = sock.session
        if resumed:
            break
    assert resumed
    # Routers tell one another what they have counted, in a moment.
    until(lambda: int(info(cluster, "tls_resumed_handshakes")) > before, "a session that was resumed")


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
def test_older_versions_are_refused(cluster: TlsCluster, version: str) -> None:
    done = openssl(cluster, f"-{version.lower().replace('.', '_').replace('v', '')}", "-cipher", "ALL:@SECLEVEL=0")
    assert "BEGIN SSL SESSION" not in done and "Cipher is (NONE)" in done


def openssl(cluster: TlsCluster, *options: str, said: bytes = b"") -> str:
    """What `openssl s_client` shows."""
    try:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{cluster.tls_port}", *options],
            input=said, capture_output=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def test_renegotiation_and_compression_and_alpn_are_not_offered(cluster: TlsCluster) -> None:
    shown = openssl(cluster, "-tls1_2", "-alpn", "h2", said=b"R\nPING\n")
    assert "no renegotiation" in shown.lower() or "handshake failure" in shown.lower()
    assert "Compression: NONE" in shown
    assert "No ALPN negotiated" in shown


def test_a_flood_of_key_updates(cluster: TlsCluster) -> None:
    openssl(cluster, "-tls1_3", said=b"K\n" * 3000 + b"Q\n")
    with cluster.secure() as connection:
        assert connection.request("ping") == "PONG"
    assert "Traceback" not in cluster.log()


def test_who_does_not_finish_a_handshake_is_closed() -> None:
    with TlsCluster(tls_handshake_timeout_ms=500) as cluster:
        waiting = []
        for number in range(420):  # most of them are answered, and more than may wait for their client
            wire = Wire(cluster)
            if number % 10:
                wire.socket.sendall(wire.hello())
            waiting.append(wire)
        with cluster.secure() as honest:
            assert honest.request("ping") == "PONG"
            for wire in waiting:
                wire.socket.settimeout(DEADLINE)
                try:
                    while wire.socket.recv(1 << 16):
                        pass
                except ConnectionResetError:
                    pass
                wire.socket.close()
            assert honest.request("ping") == "PONG"
        assert "no TLS handshake in time" in cluster.log()


def test_without_a_descriptor_of_our_own() -> None:
    """The reactor below the event loop, as elsewhere than on Linux: handshakes, pauses, ends."""
    with TlsCluster(2, reactor="loop") as cluster:
        connections = [cluster.secure() for _ in range(40)]
        for number, connection in enumerate(connections):
            connection.send(*[("echo", f"{number}-" * 3000)] * 20, ("client", "pause", 20))
        for number, connection in enumerate(connections):
            assert connection.read_many(21) == [f"{number}-".encode() * 3000] * 20 + ["OK"]
        with Wire(cluster) as wire:
            wire.shake(7)
            for _ in range(500):
                wire.ssl.write(encode(("ping",)))
            wire.send(100)
            wire.socket.shutdown(socket.SHUT_WR)
            data = b""
            while piece := wire.socket.recv(1 << 16):
                data += piece
            wire.incoming.write(data)
            assert wire.read_to_close_notify() == b"+PONG\r\n" * 500
        for connection in connections:
            assert connection.request("ping") == "PONG"
            connection.close()
        until(lambda: info(cluster, "tls_connected_clients") == "0", "nobody is left")
        assert "Traceback" not in cluster.log()


def test_certificates_of_clients(tmp_path: Path) -> None:
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    ours, other = Authority(tmp_path), Authority(other_dir)
    mine, theirs = ours.issue("client", "client@example.org"), other.issue("client", "client@example.org")
    with TlsCluster(authority=ours, tls_auth_clients="yes") as cluster:
        with cluster.secure(ours.context(mine)) as connection:
            assert connection.request("ping") == "PONG"
        for context in (ours.context(), ours.context(theirs)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                cluster.secure(context).request("ping")
        with Client(
            "localhost", cluster.tls_port, tls=True, ca=str(ours.ca_file), cert=str(mine[0]), key=str(mine[1])
        ) as client:
            assert client.ping()
        with pytest.raises(ConnectError, match=r"refuses TLS with this client.*certificate"):
            Client("localhost", cluster.tls_port, tls=ours.context()).ping()

        async def without() -> None:
            async with AsyncClient("localhost", cluster.tls_port, tls=ours.context()) as client:
                await client.ping()

        with pytest.raises(ConnectError, match="certificate"):
            asyncio.run(without())
        refused = cluster.kache(
            "get", "--host=localhost", f"--port={cluster.tls_port}", "--tls", "--cacert", ours.ca_file, "k", check=False
        )
        assert refused.returncode != 0 and "certificate required" in refused.stderr
        # Live: existing connections stay, new ones go by the new rule.
        assert cluster.request("config", "set", "tls-auth-clients", "optional") == "OK"
        with cluster.secure(ours.context()) as connection:
            assert connection.request("ping") == "PONG"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            cluster.secure(ours.context(theirs)).request("ping")
        with pytest.raises(CommandError, match="can be TLSv1"):
            cluster.request("config", "set", "tls-protocols", "TLSv1.1")
        with pytest.raises(CommandError, match="tls-ciphers knows none"):
            cluster.request("config", "set", "tls-ciphers", "ROT13")
        assert cluster.request("config", "set", "tls-protocols", "TLSv1.3") == "OK"
        with cluster.secure(ours.context()) as connection:
            assert connection.socket.version() == "TLSv1.3"
        with pytest.raises(CommandError, match=r"cannot be changed|immutable"):
            cluster.request("config", "set", "tls-cert-file", "/etc/passwd")


def test_certificates_as_users(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    me = authority.issue("me", "me@example.org", common_name="default")
    nobody = authority.issue("nobody", "you@example.org", common_name="nobody")
    control = authority.issue("control", "you@example.org", common_name="default\x01")
    without = authority.issue("without", "you@example.org")
    options = {"tls_auth_clients": "yes", "tls_auth_clients_user": "CN", "requirepass": "open-sesame"}
    with TlsCluster(authority=authority, **options) as cluster:
        with cluster.secure(authority.context(me)) as connection:
            assert connection.request("acl", "whoami") == b"default"
            assert connection.request("set", "k", 1) == "OK"
        for certificate in (nobody, control, without):
            with cluster.secure(authority.context(certificate)) as connection:
                refused = connection.request("get", "k")
                assert isinstance(refused, CommandError) and refused.code == "NOAUTH"
                assert connection.request("auth", "open-sesame") == "OK"
                assert connection.request("get", "k") == b"1"
        with Connection(cluster.port) as plain:
            plain.request("auth", "open-sesame")
            refusals = [row for row in plain.request("acl", "log") if row[3] == b"tls-cert"]
            assert refusals and {row[9] for row in refusals} >= {b"nobody"}
            assert plain.request("acl", "setuser", "nobody", "on", "resetpass", "~k", "+get", "+acl|whoami") == "OK"
        with cluster.secure(authority.context(nobody)) as connection:
            assert connection.request("acl", "whoami") == b"nobody"
            assert connection.request("get", "k") == b"1"
            refused = connection.request("get", "other")
            assert isinstance(refused, CommandError) and refused.code == "NOPERM"
        with Connection(cluster.port) as plain:
            plain.request("auth", "open-sesame")
            assert plain.request("acl", "setuser", "nobody", "off") == "OK"
        with cluster.secure(authority.context(nobody)) as connection:
            assert isinstance(connection.request("get", "k"), CommandError)
        with Connection(cluster.port) as plain:
            plain.request("auth", "open-sesame")
            assert plain.request("config", "set", "tls-auth-clients-user", "off") == "OK"
        with cluster.secure(authority.context(me)) as connection:
            assert isinstance(connection.request("get", "k"), CommandError)


def serials(cluster: TlsCluster) -> set[str]:
    """Of the certificates that new connections see, at every router."""
    with cluster.every_router(cluster.secure) as connections:
        return {serial_of(connection) for connection in connections}


def serial_of(connection: Connection) -> str:
    return str(connection.socket.getpeercert()["serialNumber"])


def serial(cluster: TlsCluster) -> str:
    """Of the one certificate that all routers serve."""
    (found,) = serials(cluster)
    return found


def reload_by_signal(cluster: TlsCluster) -> None:
    """Returns when the supervisor says that everybody has the new certificate: until then some may have it already."""
    sign = "the TLS certificate was read again"
    before = cluster.log().count(sign)
    cluster.process.send_signal(signal.SIGHUP)
    until(lambda: cluster.log().count(sign) > before, "the certificate is read again")


def test_new_certificates_drop_nobody() -> None:
    with TlsCluster(2, routers=2) as cluster:
        first = serial(cluster)
        assert info(cluster, "tls_server_cert_serial") == first
        old = [cluster.secure() for _ in range(10)]
        failures: list[BaseException] = []
        stop = threading.Event()

        def load() -> None:
            try:
                with cluster.secure() as connection:
                    while not stop.is_set():
                        connection.send(*[("incr", "under-load")] * 50)
                        connection.read_many(50)
                        with cluster.secure() as new:
                            assert new.request("ping") == "PONG"
            except BaseException as error:
                failures.append(error)

        worker = threading.Thread(target=load)
        worker.start()
        serials = {first}
        for round in range(15):
            cluster.authority.issue("server", "localhost", "127.0.0.1", "::1")
            if round % 2:
                reload_by_signal(cluster)
            else:
                cluster.kache("cluster", "reload")
            now = serial(cluster)
            assert now not in serials
            serials.add(now)
        stop.set()
        worker.join(DEADLINE)
        assert not worker.is_alive() and not failures, failures
        for connection in old:
            assert connection.request("ping") == "PONG"
            connection.close()
        until(lambda: cluster.status()["tls_serial"] == now, "the status has the certificate of the last round")


def test_a_router_that_hung_meanwhile_gets_the_new_certificate() -> None:
    with TlsCluster(routers=2, unresponsive_seconds=1, restart_unresponsive="no") as cluster:
        first = serial(cluster)
        stopped = cluster.pid_of("router", 1)
        cluster.kill(stopped, signal.SIGSTOP)
        until(lambda: cluster.child("router", 1)["state"] == "unresponsive", "it counts as unresponsive")
        cluster.authority.issue("server", "localhost", "127.0.0.1", "::1")
        cluster.kache("cluster", "reload")
        cluster.kill(stopped, signal.SIGCONT)
        until(lambda: len(found := serials(cluster)) == 1 and found != {first}, "both have the new certificate")


def test_broken_files_change_nothing() -> None:
    with TlsCluster(2, routers=2) as cluster:
        first = serial(cluster)
        key = cluster.authority.key_file.read_bytes()
        cluster.authority.key_file.write_bytes(b"nonsense")
        refused = cluster.kache("cluster", "reload", check=False)
        assert refused.returncode == 1 and "server.key" in refused.stderr and "Traceback" not in refused.stderr
        assert serial(cluster) == first
        status = cluster.kache("cluster", "status", check=False)
        assert status.returncode == 1 and "not read again" in status.stdout
        # A router that is started now has nothing to serve TLS with; the other one serves, and so does the plain port.
        killed = cluster.pid_of("router", 0)
        cluster.kill(killed)
        cluster.replaced("router", 0, killed)
        until(lambda: "server.key" in cluster.child("router", 0)["reason"], "it says why it serves no TLS")
        with cluster.of_router(1, cluster.secure) as connection:
            assert serial_of(connection) == first
        assert cluster.request("ping") == "PONG"
        cluster.authority.key_file.write_bytes(key)
        cluster.kache("cluster", "reload")
        until(lambda: cluster.child("router", 0)["reason"] == "" or "server.key" not in cluster.child("router", 0)["reason"],
              "router 0 serves TLS again")  # fmt: skip
        assert cluster.kache("cluster", "status").returncode == 0


def test_files_are_looked_at_when_asked_to() -> None:
    with TlsCluster(tls_auto_reload_interval=1) as cluster:
        first = serial(cluster)
        cluster.authority.issue("server", "localhost", "127.0.0.1")
        until(lambda: serial(cluster) != first, "the new certificate")
        assert "have changed" in cluster.log()


def test_tls_only_and_metrics_over_tls() -> None:
    (metrics_port,) = free_ports(1)
    with TlsCluster(plain=False, metrics_port=metrics_port, metrics_tls="yes", routers=2) as cluster:
        assert cluster.port == cluster.tls_port
        assert "with TLS only" in cluster.ready_line
        with cluster.secure() as connection:
            assert connection.request("set", "k", "v") == "OK"
            assert b"tcp_port:0\r\n" in connection.request("info", "server")
        context = cluster.authority.context()
        address = f"https://localhost:{metrics_port}"
        with urllib.request.urlopen(f"{address}/metrics", context=context, timeout=DEADLINE) as reply:
            text = reply.read().decode()
        assert "kache_router_tls_handshakes_total" in text
        assert "kache_router_tls_certificate_expires_timestamp_seconds" in text
        with urllib.request.urlopen(f"{address}/healthz", context=context, timeout=DEADLINE) as reply:
            assert reply.status == 200
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://localhost:{metrics_port}/healthz", timeout=DEADLINE)
        cert = cluster.authority.cert_file.read_bytes()
        cluster.authority.issue("server", "localhost", "127.0.0.1")
        cluster.kache("cluster", "reload")
        plain = socket.create_connection(("localhost", metrics_port), DEADLINE)
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            new = sock.getpeercert(binary_form=True)
        assert new is not None and ssl.DER_cert_to_PEM_cert(new).encode() not in cert


def refused_start(authority: Authority, **options: object) -> str:
    """What a start that is refused says."""
    port, tls_port = free_ports(2)
    settings = {
        "tls-port": tls_port,
        "tls-cert-file": authority.cert_file,
        "tls-key-file": authority.key_file,
        "tls-auth-clients": "no",
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    done = subprocess.run(
        [sys.executable, "-m", "kache", "cluster", "start", f"--port={port}", f"--dir={authority.directory}",
         *(f"--{name}={value}" for name, value in settings.items())],
        env={**os.environ, "KACHE_RUN_DIR": str(authority.directory / "run")},
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_a_start_refuses(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert "tls-ca-cert-file" in refused_start(authority, tls_auth_clients="yes")
    assert "tls-key-file is not set" in refused_start(authority, tls_key_file="")
    other, _ = authority.issue("another", "localhost")
    assert "is not the key of the certificate" in refused_start(authority, tls_cert_file=other)
    now = datetime.datetime.now(datetime.UTC)
    long_ago = now - datetime.timedelta(days=10)
    old, old_key = authority.issue("old", "localhost", not_before=long_ago, not_after=now - datetime.timedelta(days=1))
    assert "expired" in refused_start(authority, tls_cert_file=old, tls_key_file=old_key)
    authority.key_file.chmod(0o644)
    assert "read by everybody" in refused_start(authority)
