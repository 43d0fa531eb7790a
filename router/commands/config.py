"""CONFIG: the settings under Redis's names, read here and changed through the supervisor.

A change is answered once every process of the cluster has it, so that a shard which restarts afterwards
comes back with it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kache.cluster.control import ControlError
from kache.cluster.messages import ConfigRewrite, ConfigSet
from kache.config.changing import changed, is_known, redis_settings
from kache.config.settings import ConfigError
from kache.errors import SYNTAX, CommandError
from kache.glob import compile_glob
from kache.replies import OK, Reply

from ..peers import answers, ask
from ..registry import local
from .arguments import text

if TYPE_CHECKING:
    from ..mux.multiplexer import Router, Session

__all__: list[str] = []


@local("config|get")
def config_get(router: Router, session: Session, *patterns: bytes) -> Reply:
    """A map of the settings whose names match any of the globs."""
    settings = {name.encode(): value.encode() for name, value in redis_settings(router.config).items()}
    found: dict[bytes, bytes] = {}
    for pattern in patterns:
        if any(sign in pattern for sign in (b"*", b"?", b"[")):
            matches = compile_glob(pattern.lower())
            found |= {name: value for name, value in settings.items() if matches(name)}
        elif pattern.lower() in settings:
            # A plain name comes back in the case in which it was asked for.
            found[pattern] = settings[pattern.lower()]
    return found


@local("config|set")
async def config_set(router: Router, session: Session, *args: bytes) -> Reply:
    """CONFIG SET name value [name value …]: all or none."""
    if len(args) % 2:
        raise CommandError(SYNTAX)
    values: dict[str, str] = {}
    for at in range(0, len(args), 2):
        name = text(args[at]).lower()
        if name in values:
            raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")
        values[name] = text(args[at + 1])
    _validate(router, values)
    try:
        await router.control.request(ConfigSet(0, values))
    except ControlError as error:
        raise CommandError(f"ERR CONFIG SET failed - {error}") from None
    return OK


def _validate(router: Router, values: dict[str, str]) -> None:
    """Refuses a wrong name or value here, with the wording that clients know."""
    for name in values:
        if not is_known(name):
            raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name[:128]}'")
    try:
        changed(router.config, values)
    except ConfigError as error:
        name = error.setting if error.setting in values else next(iter(values))
        raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {error.reason}") from None


@local("config|rewrite")
async def config_rewrite(router: Router, session: Session) -> Reply:
    """Writes what was changed at run time into the configuration file."""
    try:
        await router.control.request(ConfigRewrite(0))
    except ControlError as error:
        raise CommandError(f"ERR Rewriting config file: {error}") from None
    return OK


@local("config|resetstat")
async def config_resetstat(router: Router, session: Session) -> Reply:
    """Counters of every router and of every shard start again at zero."""
    await ask(router, "reset")
    router.reset_statistics()
    router.accounts.reset_counters()
    await router.call_all("_reset_stats", [])
    return OK


@answers("reset")
def _reset_for_another(router: Router, _words: Sequence[bytes]) -> bytes:
    router.reset_statistics()
    router.accounts.reset_counters()
    return b""
