"""``kache cluster start | stop | status | restart | reload | settings``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from typing import Any

import click
import msgspec

from kache.cli.backend import check
from kache.cli.connection import PORT, TIMEOUT, WholeNumber
from kache.cli.exits import EXIT_ERROR, EXIT_NO_CLUSTER, EXIT_STATUS, EXIT_USAGE, Failure
from kache.cli.group import Group
from kache.cluster import control, messages
from kache.cluster.run_dir import RunDirError, find_control
from kache.config.kinds import Setting, format_address, format_size
from kache.config.reading import load, secret_variables
from kache.config.settings import SETTINGS, Config, ConfigError
from kache.errors import KacheError

__all__ = ["Admin", "cluster", "port_option", "timeout_option"]

_SHOWN = (
    "shards", "routers", "port", "bind", "maxmemory", "maxmemory-policy", "dir", "requirepass", "maxclients", "timeout",
    "backend",
    "request-timeout-ms", "loglevel", "logformat", "logfile", "pin-cores", "scheduling",
)  # fmt: skip
"""Options in the help of `start`; the others are options, too, and listed by `kache cluster settings`."""


_NEVER_TYPED = ("backend-password",)
"""Settings that are no options: who else is on the machine can read them."""

_METAVARS = {
    "backend": "URL",
    "port": "PORT", "bind": "ADDRESS", "dir": "DIRECTORY", "maxmemory-policy": "POLICY", "requirepass": "PASSWORD",
    "timeout": "SECONDS", "logfile": "FILE", "pin-cores": "yes|no",
}  # fmt: skip
"""Where the kind of a setting says too little, or its choices are too many for the left column."""

_MORE = {
    "bind": " Give it once for each address.",
    "requirepass": " Better in KACHE_REQUIREPASS: other users can see options.",
}
"""What only matters to who types the option."""


@click.group("cluster", cls=Group, epilog=EXIT_STATUS)
def cluster() -> None:
    """Start, stop, restart and look at a cluster."""


def _choices(name: str, setting: Setting) -> str:
    return f" {setting.wanted().capitalize()}." if setting.choices and name in _METAVARS else ""


def _setting_options(function: Any) -> Any:
    defaults = Config()
    for name, setting in reversed(list(SETTINGS.items())):
        if not setting.fixed and name not in _NEVER_TYPED:
            default = setting.show(defaults.setting(name)) or "none"
            function = click.option(
                f"--{name}",
                multiple=setting.kind.name == "list",
                metavar=_METAVARS.get(name) or "|".join(setting.choices) or setting.kind.name.upper(),
                help=f"{setting.doc}{_choices(name, setting)}{_MORE.get(name, '')}  [default: {default}]",
                hidden=name not in _SHOWN,
            )(function)
    return function


@cluster.command("start", short_help="Start a cluster; in the foreground unless --detach.")
@_setting_options
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="TOML file of settings, or KACHE_CONFIG; options and other variables win.",
)
@click.option(
    "--detach",
    "-d",
    is_flag=True,
    help="Run it in the background; the command returns when it answers, with 1 if only a part of it does.",
)
@click.option("--exit-with-fd", type=int, metavar="FD", help="Stop when this inherited file descriptor ends.")
@click.option("--for-tests", is_flag=True, hidden=True, help="Let its owner move its clock and stage faults.")
@click.option("--remove-dir", is_flag=True, hidden=True, help="Remove dir, a temporary one, at the end.")
def start(
    config_file: str | None, detach: bool, exit_with_fd: int | None, for_tests: bool, remove_dir: bool, **options: Any
) -> int:
    """Start a cluster; in the foreground, until Ctrl-C, unless --detach.

    Every setting is an option, a variable (KACHE_MAXMEMORY_POLICY) and a key of the file of --config; the first of
    these that is given wins. Here are the usual ones; `kache cluster settings` lists all of them.
    """
    # An option that may be repeated is a tuple, empty when it was not given; a text may be empty on purpose.
    lists = {name: " ".join(value) if value else None for name, value in options.items() if isinstance(value, tuple)}
    given = options | lists
    config_file = config_file or os.environ.get("KACHE_CONFIG") or None
    path = os.path.abspath(config_file) if config_file else None
    here = os.getcwd()

    environ = dict(os.environ)  # read again by a reload
    for name in secret_variables(os.environ):
        del os.environ[name]  # what is started from here on, a pager or a crash reporter, gets no password with it

    def read() -> Config:
        config = load(given, environ, path)
        if config.dir == ".":
            return config
        # The cluster goes there, and then a relative one would mean another place.
        return msgspec.structs.replace(config, dir=os.path.normpath(os.path.join(here, config.dir)))

    try:
        config = read()
        os.chdir(config.dir)
    except ConfigError as error:
        raise Failure(str(error), EXIT_USAGE) from None
    except FileNotFoundError:
        raise Failure(f"There is no directory {config.dir}: make it, or choose another --dir.", EXIT_USAGE) from None
    except OSError as error:
        raise Failure(f"The directory {config.dir} cannot be used: {error.strerror}.", EXIT_USAGE) from None
    if exit_with_fd is not None:
        try:
            os.fstat(exit_with_fd)
        except OSError:
            raise Failure(f"The descriptor {exit_with_fd} of --exit-with-fd is not open.", EXIT_USAGE) from None
    from kache.cluster.supervisor import Supervisor

    def supervise(config: Config, on_ready: Any) -> int:
        return Supervisor(
            config, config_file=path, reload=read, exit_fd=exit_with_fd, on_ready=on_ready, for_tests=for_tests
        ).run()

    if detach:
        from kache.cluster.announcement import doubts
        from kache.cluster.detach import detached

        for doubt in doubts(config, environ):  # in the foreground its log says so
            click.echo(f"kache: Warning: {doubt}.", err=True)
        keep = () if exit_with_fd is None else (exit_with_fd,)
        return detached(config, supervise, keep)
    try:
        return supervise(config, _say)
    except KacheError as error:
        raise Failure(str(error)) from None
    finally:
        if remove_dir:
            shutil.rmtree(config.dir, ignore_errors=True)


def _say(text: str, _whole: bool) -> None:
    """Print a line; raises OSError where it cannot be, and then what is left of it spoils no exit status."""
    try:
        print(text, flush=True)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise


class Admin:
    """A blocking conversation with a running supervisor."""

    def __init__(self, port: int, timeout: float) -> None:
        path = find_control(os.environ, port)
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            if path is None:
                raise FileNotFoundError
            self._socket.connect(path)
        except PermissionError:
            raise Failure(f"The cluster on port {port} belongs to another user.", EXIT_NO_CLUSTER) from None
        except (OSError, RunDirError):
            raise Failure(f"No cluster runs on port {port}.", EXIT_NO_CLUSTER) from None

    def request(self, message: messages.Up) -> messages.Down:
        """The answer to a request; Failure when it is refused, or does not come."""
        try:
            control.send(self._socket, message)
            answer = control.receive(self._socket, self._buffer)
        except (control.ControlError, OSError) as error:
            raise Failure(f"The supervisor did not answer: {error}.") from None
        if isinstance(answer, messages.Ack) and answer.error:
            raise Failure(answer.error[0].upper() + answer.error[1:] + ".")
        return answer

    def status(self) -> messages.ClusterStatus:
        """What the supervisor says of its cluster."""
        answer = self.request(messages.StatusRequest(1))
        assert isinstance(answer, messages.StatusReply)
        return answer.status

    def stop(self, force: bool) -> str | None:
        """Have the cluster end: "" once everything that it keeps is on disk, or why that cannot be; None: not before the
        time-out."""
        try:
            control.send(self._socket, messages.Shutdown(2, force=force))
            answer = control.receive(self._socket, self._buffer)
        except control.LateError:
            return None
        except (control.ControlError, OSError) as error:
            raise Failure(f"The supervisor did not answer: {error}.") from None
        return answer.error if isinstance(answer, messages.Ack) else ""

    def wait_for_end(self) -> bool:
        """Whether the supervisor ended before the time-out."""
        try:
            while self._socket.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


port_option = click.option(
    "--port",
    "-p",
    envvar="KACHE_PORT",
    type=PORT,
    metavar="PORT",
    default=7379,
    show_default=True,
    help="Port of the cluster, or KACHE_PORT.",
)
timeout_option = click.option(
    "--timeout", type=TIMEOUT, metavar="SECONDS", default=30.0, show_default=True, help="How long to wait for it."
)


@cluster.command("status", short_help="Show the processes of a cluster.")
@port_option
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print everything, with all settings, as JSON.")
def status(port: int, timeout: float, as_json: bool) -> int:
    """Show the processes of a cluster of yours on this machine; it needs no password.

    A process that is "unresponsive" runs, but has given no sign of life for the setting unresponsive-seconds.

    Exit status: 0 all is well, 1 a process is not up or something cannot be healed, 3 no cluster runs on this port.
    """
    found = Admin(port, timeout).status()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found)))
    else:
        _show_status(found)
    well = all(child.state == "up" for child in found.children) and not found.troubles
    return 0 if well else EXIT_ERROR


def _show_status(found: messages.ClusterStatus) -> None:
    from kache.cli.stats import text_table, uptime

    state = "stopping" if found.draining else f"up {uptime(found.now_ms - found.started_ms)}"
    where = ", ".join(format_address(host, found.port or found.tls_port) for host in found.bind)
    tls = "" if not found.tls_port else f", TLS on port {found.tls_port}" if found.port else " with TLS only"
    click.echo(f"Kache {found.version} on {where}{tls}, {state}, supervisor pid {found.pid}")
    lines = [
        [
            f"{child.role} {child.index}",
            str(child.pid) if child.pid else "-",
            child.state,
            str(child.restarts),
            uptime(found.now_ms - child.started_ms) if child.pid else "-",
            _kept(child.kept),
        ]
        for child in found.children
    ]
    shown = text_table(["process", "pid", "state", "restarts", "uptime", "kept on disk"], lines).split("\n")
    click.echo(shown[0] + "  last end")
    for line, child in zip(shown[1:], found.children, strict=True):
        click.echo(f"{line}  {child.reason}".rstrip())
    if found.tls_serial:
        days = (found.tls_expires * 1000 - found.now_ms) // 86_400_000
        until = time.strftime("%Y-%m-%d", time.gmtime(found.tls_expires))
        click.echo(f"TLS certificate {found.tls_serial}, valid until {until} ({days} days)")
    for trouble in found.troubles:
        click.echo(trouble)


def _kept(kept: messages.Kept | None) -> str:
    """``log ok, 1.2mb + base 5mb``, ``base 5mb, no log``"""
    if kept is None:
        return "-"
    base = f"base {format_size(kept.base)}"
    log = f"{base}, no log" if kept.state == "off" else f"log {kept.state}, {format_size(kept.log)} + {base}"
    return f"{log}, {kept.dump}" if kept.dump else log


@cluster.command("stop", short_help="End a cluster, once what is in flight is answered.")
@port_option
@timeout_option
@click.option(
    "--force", "-f", is_flag=True, help="Also if its data cannot be saved; at once if it is stopping already."
)
def stop(port: int, timeout: float, force: bool) -> int:
    """Answer what is in flight, save what is to be kept, then end the cluster; returns when it is gone.

    Where something cannot be saved the cluster goes on, the command says why, and ends with status 1.
    """
    admin = Admin(port, timeout)
    pid = admin.status().pid
    unsaved = admin.stop(force)
    if unsaved and not force:
        raise Failure(
            f"The cluster on port {port} goes on, since its data cannot be saved ({unsaved}); "
            f"`kache cluster stop --force --port {port}` stops it without."
        )
    if unsaved is None or not admin.wait_for_end():
        raise Failure(f"The cluster on port {port} (pid {pid}) has not ended within {timeout:g} s.")
    if unsaved:
        raise Failure(f"The cluster on port {port} has stopped without having saved everything ({unsaved}).")
    click.echo(f"The cluster on port {port} has stopped.")
    return 0


@cluster.command("restart", short_help="Restart the processes of a cluster one after the other.")
@port_option
@timeout_option
@click.option("--shard", "-s", type=WholeNumber(0), metavar="INDEX", help="Only this shard; the first is 0.")
@click.option("--router", "-r", "only_router", is_flag=True, help="Only the routers.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask whether the data of the shards may go.")
def restart(port: int, timeout: float, shard: int | None, only_router: bool, yes: bool) -> int:
    """Restart the processes of a cluster one after the other; new connections wait, none is refused.

    A router closes its open connections once they are answered. With a log (appendonly) or save points a shard comes back
    with what it held. Without, that is forgotten: so it asks first, and without a terminal it needs --yes.
    """
    if shard is not None and only_router:
        raise click.UsageError("--shard and --router exclude each other.", click.get_current_context())
    admin = Admin(port, timeout)
    found = admin.status()
    children = found.children
    if shard is not None:
        chosen = [child for child in children if child.role == "shard" and child.index == shard]
        if not chosen:
            raise Failure(f"There is no shard {shard}; the cluster has {sum(c.role == 'shard' for c in children)}.")
    else:
        chosen = [c for c in children if c.role == "router" or (c.role == "shard" and not only_router)]
    if not yes and found.config["appendonly"] == "no" and not found.config["save"]:
        _ask_about_data([child for child in chosen if child.role == "shard"])
    for child in chosen:
        admin.request(messages.RestartShard(3, child.index if child.role == "shard" else -1 - child.index))
        click.echo(f"{child.role} {child.index} serves again.")
    return 0


def _what_goes(shards: list[messages.ChildStatus]) -> str:
    """What these shards forget when they restart without a log or save points."""
    which = f"shard {shards[0].index} holds" if len(shards) == 1 else "the shards hold"
    saved = [child for child in shards if child.kept is not None and child.kept.base + child.kept.log > 0]
    if not saved:
        return f"All data that {which} will be forgotten, since nothing is kept on disk (appendonly no, no save points)"
    if len(saved) == len(shards):
        goes = f"Shard {shards[0].index} goes" if len(shards) == 1 else "The shards go"
        return f"{goes} back to what is on disk: what was written since then will be forgotten (appendonly no, no save points)"
    back, empty = (
        ", ".join(str(child.index) for child in shards if (child in saved) is wanted) for wanted in (True, False)
    )
    return (
        f"Shards {back} go back to what is on disk, and shards {empty}, of which nothing is there, forget all their data "
        "(appendonly no, no save points)"
    )


def _ask_about_data(shards: list[messages.ChildStatus]) -> None:
    """Data that goes with the restart of these shards goes only if somebody wants it to."""
    if not shards:
        return
    what = _what_goes(shards)
    if not sys.stdin.isatty():
        raise Failure(f"{what}. Say --yes to restart all the same; --router restarts only the routers.", EXIT_USAGE)
    if not click.confirm(f"{what}. Restart?"):
        raise Failure("Nothing was restarted.")


@cluster.command("reload", short_help="Read the configuration and the TLS certificate again.")
@port_option
@timeout_option
def reload(port: int, timeout: float) -> int:
    """Read the file of --config and the files of the TLS certificate again, as SIGHUP does; nobody is disconnected.

    Settings that cannot change while the cluster runs stay as they are; the log names them. A certificate that cannot be
    used changes nothing, and the command says why.
    """
    Admin(port, timeout).request(messages.Reload(1))
    click.echo(f"The cluster on port {port} has read its configuration again.")
    return 0


@cluster.command("settings", short_help="List every setting with its reason and default, as TOML.")
def settings() -> int:
    """List every setting with its reason and default, as TOML to be pasted into a file of --config.

    The setting maxmemory-policy is also the option --maxmemory-policy of `kache cluster start` and the variable
    KACHE_MAXMEMORY_POLICY.
    """
    from kache.config.document import settings_text

    click.echo(settings_text(), nl=False)
    return 0


cluster.add_command(check)

if sys.platform == "win32":
    raise ImportError("Kache needs a POSIX system")
