"""The command line's own connection: RESP3, since it keeps the shape of a reply (map, set, double) for showing it.

Blocking, one command at a time. Programs use `kache.Client`.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from kache.cli.exits import EXIT_NO_CLUSTER, EXIT_USAGE, Failure
from kache.config.kinds import format_address
from kache.errors import CommandError

if TYPE_CHECKING:
    from kache.client.tls import Tls

__all__ = ["PORT", "TIMEOUT", "Address", "Connection", "WholeNumber", "address_options"]

F = TypeVar("F", bound=Callable[..., Any])


class Address(NamedTuple):
    """Which cluster, as whom, and how long to wait for it (seconds)."""

    host: str
    port: int
    password: str | None = None
    user: str | None = None
    db: int = 0
    timeout: float = 10.0
    unixsocket: str | None = None
    tls: Tls | None = None

    @property
    def where(self) -> str:
        """``127.0.0.1:7379``, or the path of the Unix socket."""
        return self.unixsocket or format_address(self.host, self.port)

    @property
    def credentials(self) -> list[str]:
        """What AUTH is given, empty for nothing. A user without a password may be one that needs none."""
        return [self.user or "default", self.password or ""] if self.user or self.password else []


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """Seconds that a socket can wait: 0 would not wait at all, and far more than this some systems cannot count."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= 1_000_000:  # false for nan, too
            self.fail(f"must be a number of seconds above 0 and up to 1000000, not '{value}'", param, ctx)
        return seconds


class WholeNumber(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """An int from `low` to `high`; what is none is refused with the variable it came from."""

    name = "number"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = self.low - 1
        if number < self.low or (self.high is not None and number > self.high):
            limits = f"at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
            self.fail(f"must be a whole number, {limits}, not '{value}'{_origin(param, ctx)}", param, ctx)
        return number


def _origin(param: click.Parameter | None, ctx: click.Context | None) -> str:
    if param is None or param.name is None or ctx is None or not isinstance(param.envvar, str):
        return ""
    from click.core import ParameterSource

    return (
        f" (the variable {param.envvar})" if ctx.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT else ""
    )


class _Host(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """A name or an address; an IPv6 address may stand in brackets, as the ready line shows it."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host = str(value).strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not host:
            self.fail("must be a name or an address, not empty", param, ctx)
        return host


def _password_of_file() -> str | None:
    """The first line of the file named in KACHE_REQUIREPASS_FILE, where that is set as for the cluster."""
    path = os.environ.get("KACHE_REQUIREPASS_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n") or None
    except (OSError, UnicodeDecodeError):
        return None  # not ours to read; the cluster says what it wants


TIMEOUT = _Seconds()
PORT = WholeNumber(1, 65535)


class _Port(WholeNumber):
    """A port to connect to. KACHE_PORT=0 is what a cluster is told that has none: then the Unix socket must be named, or
    the port that speaks TLS."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        # What was not given is None or, while click 8.3 and later is at work, a mark of its own.
        if str(value).strip() == "0" and ctx is not None and isinstance(ctx.params.get("unixsocket"), str):
            return 0
        return super().convert(value, param, ctx)


def address_options(function: F) -> F:
    """The options that say which cluster: --host, --port, --unixsocket, --password, --user, --db, --timeout, and --tls with its
    own.

    They arrive as one argument, `address`.
    """
    options = (
        click.option(
            "--host", envvar="KACHE_HOST", type=_Host(), metavar="ADDRESS", default="127.0.0.1", show_default=True,
            help="Address of the cluster, or KACHE_HOST.",
        ),
        click.option(
            "--port", "-p", envvar="KACHE_PORT", type=_Port(1, 65535), metavar="PORT", default=7379, show_default=True,
            help="TCP port of the cluster, or KACHE_PORT.",
        ),
        click.option(
            "--unixsocket", envvar="KACHE_UNIXSOCKET", metavar="PATH", is_eager=True,
            help="Unix socket of the cluster, instead of host and port, or KACHE_UNIXSOCKET.",
        ),
        click.option(
            "--password", envvar=["KACHE_PASSWORD", "KACHE_REQUIREPASS"], metavar="PASSWORD", default=_password_of_file,
            help="Password, if the cluster wants one; better in KACHE_PASSWORD, which other users cannot see.",
        ),
        click.option(
            "--user", envvar="KACHE_USER", metavar="NAME", help="User to log in as, if not the default one, or KACHE_USER."
        ),
        click.option(
            "--db", "-n", type=WholeNumber(0, 15), metavar="NUMBER", default=0, show_default=True,
            help="Numbered database, 0 to 15.",
        ),
        click.option(
            "--timeout", type=TIMEOUT, metavar="SECONDS", default=10.0, show_default=True,
            help="How long to wait for a reply.",
        ),
        *_TLS_OPTIONS,
    )  # fmt: skip

    @functools.wraps(function)
    def with_address(*args: Any, **given: Any) -> Any:
        of_tls = {name: given.pop(name) for name in ("tls", "cacert", "cert", "key", "insecure", "sni")}
        tls = _tls(given["host"], **of_tls)
        if given["unixsocket"] and _meant_otherwise(tls is not None):
            given["unixsocket"] = None
        address = Address(**{name: given.pop(name) for name in Address._fields if name != "tls"}, tls=tls)
        return function(*args, **given, address=address)

    wrapped: Any = with_address
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # click's decorators do not say what they return


_TLS_OPTIONS = (
    click.option("--tls", is_flag=True, envvar="KACHE_TLS", help="Connect with TLS; the port is that of tls-port."),
    click.option(
        "--cacert", envvar="KACHE_CACERT", metavar="FILE",
        help="Certificates to trust instead of the system's, or KACHE_CACERT.",
    ),
    click.option("--cert", envvar="KACHE_CERT", metavar="FILE", help="Certificate to show, or KACHE_CERT."),
    click.option("--key", envvar="KACHE_KEY", metavar="FILE", help="Its private key, or KACHE_KEY."),
    click.option("--insecure", is_flag=True, help="Do not verify who answers."),
    click.option("--sni", metavar="NAME", help="Name that the certificate must have, if it is not that of --host."),
)  # fmt: skip


def _meant_otherwise(tls: bool) -> bool:
    """Whether the Unix socket of KACHE_UNIXSOCKET is not what is meant: an option names another place, and options come before
    variables. Raises UsageError where both are options."""
    from click.core import ParameterSource

    ctx = click.get_current_context()
    named = [name for name in ("host", "port") if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    named += ["tls"] if tls else []
    if named and ctx.get_parameter_source("unixsocket") is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--unixsocket and --{named[0]} name two places: say one of them")
    return bool(named)


def _tls(
    host: str, tls: bool, cacert: str | None, cert: str | None, key: str | None, insecure: bool, sni: str | None
) -> Tls | None:
    from kache.client.tls import tls_of

    if not tls:
        return None
    try:
        found = tls_of(True, cacert, cert, key, sni, host, None)
    except ValueError as error:
        # It speaks of a client's arguments; here they are options.
        option, _, text = str(error).partition(" ")
        names = {"ca": "--cacert", "cert": "--cert", "key": "--key"}
        raise Failure(
            f"{names.get(option, option.capitalize())} {text.replace('give cert', 'give --cert')}.", EXIT_USAGE
        ) from None
    assert found is not None
    if insecure:
        import ssl

        found[0].check_hostname = False
        found[0].verify_mode = ssl.CERT_NONE
    return found


def _connected(address: Address) -> socket.socket:
    if address.unixsocket is None:
        found = socket.create_connection((address.host, address.port), address.timeout)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    found = socket.socket(socket.AF_UNIX)
    try:
        found.settimeout(address.timeout)
        found.connect(address.unixsocket)
    except BaseException:
        found.close()
        raise
    return found


class Connection:
    """One connection in RESP3. `request` returns Python values, an error reply raises CommandError.

    Raises Failure when there is no cluster or it went away.
    """

    def __init__(self, address: Address) -> None:
        from kache.wire.codec import ReplyTooShort, decode_reply

        self._too_short = ReplyTooShort
        self._decode = decode_reply
        self._where = address.where
        self._buffer = bytearray()
        try:
            self._socket = _connected(address)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Failure(f"No cluster answers at {self._where}: {reason}.", EXIT_NO_CLUSTER) from None
        if address.tls is not None:
            self._secure(address.tls)
        greeting = ["hello", "3"]
        if address.credentials:
            greeting += ["auth", *address.credentials]
        self.needs_password = False
        try:
            self.request(greeting)
        except CommandError as error:
            if error.code != "NOAUTH":
                raise
            self.needs_password = True
        if address.db:
            self.request(["select", str(address.db)])

    def _secure(self, tls: Tls) -> None:
        from kache.client.tls import refusal

        try:
            self._socket = tls[0].wrap_socket(self._socket, server_hostname=tls[1])
        except OSError as error:
            self._socket.close()
            reason = "no answer in time" if isinstance(error, TimeoutError) else refusal(error) or error.strerror
            raise Failure(f"TLS with {self._where} failed: {reason}.", EXIT_NO_CLUSTER) from None

    def request(self, words: Sequence[str | bytes]) -> Any:
        """Send one command and return its reply."""
        parts = [word if isinstance(word, bytes) else word.encode("utf-8", "surrogateescape") for word in words]
        message = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        try:
            self._socket.sendall(message)
        except TimeoutError:
            raise Failure(f"{self._where} did not take the command in time.") from None
        except OSError:
            pass  # closed by the server: its last words may still be readable
        reply = self.read()
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def read(self) -> Any:
        """The next reply; an error reply is returned."""
        while True:
            try:
                value, end = self._decode(bytes(self._buffer))
            except self._too_short:
                self._receive()
                continue
            except ValueError:
                raise Failure(f"{self._where} does not speak RESP.") from None
            del self._buffer[:end]
            return value

    def _receive(self) -> None:
        # A large reply is decoded again from its start: read what is there, and more each time.
        wanted = max(65536, len(self._buffer))
        try:
            while wanted > 0:
                data = self._socket.recv(min(wanted, 1 << 20))
                if not data:
                    raise Failure(f"{self._where} closed the connection.", EXIT_NO_CLUSTER)
                self._buffer += data
                wanted -= len(data)
                if len(data) < 65536 and self._buffer.endswith(b"\r\n"):
                    return
        except TimeoutError:
            raise Failure(f"{self._where} did not answer in time.") from None
        except OSError as error:
            from kache.client.tls import refusal

            raise Failure(f"{self._where} is gone: {refusal(error) or error.strerror}.", EXIT_NO_CLUSTER) from None

    def wait_for_ever(self) -> None:
        """From here on `read` waits however long it takes."""
        self._socket.settimeout(None)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
