"""What a service manager is told (systemd's ``Type=notify``): that the cluster serves, that it lives, that it ends.

One datagram for each, to the socket in NOTIFY_SOCKET; without one nothing is told. The watchdog is fed by the loop of the
supervisor: one that hangs is killed and started again by the manager.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

__all__ = ["ServiceManager"]


class ServiceManager:
    """Takes what it needs out of `environ`, so that no child believes to be the service. Nothing here raises OSError."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._path = environ.pop("NOTIFY_SOCKET", "")
        patience = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "")
        self._is_ready = False
        self._watched = patience.isdigit() and whose in ("", str(os.getpid()))

    def ready(self, status: str) -> None:
        """Clients are served; `status` is shown by `systemctl status`."""
        self._is_ready = True
        self._tell(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """The supervisor's loop turns; to be called more often than half of WatchdogSec."""
        if self._watched and self._is_ready:
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """It ends, as it was told to."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), address)
        except OSError:
            pass  # a manager that is gone, or full: it notices what it does not hear
