"""Settings by the names that Redis clients use: what CONFIG GET shows, and what becomes of a `Config` by CONFIG SET."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kache.config.foreign import ALIASES, FOREIGN
from kache.config.kinds import SettingError
from kache.config.rules import OF_THE_NODES, check_together
from kache.config.settings import SETTINGS, Config, ConfigError, shortened

__all__ = ["changed", "is_known", "is_secret", "redis_settings"]

_BY_REDIS_NAME = {setting.redis or name: name for name, setting in SETTINGS.items()} | dict(ALIASES)


def redis_settings(config: Config) -> dict[str, str]:
    """What CONFIG GET may answer: the text of every setting by the name Redis clients use, secrets left out.

    They are not masked: tools that read all settings and write them back would store the mask.
    """
    shown = ((redis, name) for redis, name in _BY_REDIS_NAME.items() if not SETTINGS[name].secret)
    ours = {redis: SETTINGS[name].show(config.setting(name)) for redis, name in shown}
    return {name: each.value for name, each in FOREIGN.items()} | config.foreign | ours


def is_known(redis: str) -> bool:
    """Whether CONFIG SET knows a setting of that name."""
    return redis.lower() in _BY_REDIS_NAME or redis.lower() in FOREIGN


def is_secret(redis: str) -> bool:
    """Whether nobody may see what CONFIG SET is given for this name; so it is with names that nobody knows, which may be
    mistyped."""
    name = _BY_REDIS_NAME.get(redis.lower(), redis.lower())
    return SETTINGS[name].secret if name in SETTINGS else name not in FOREIGN or name == "masterauth"


def changed(config: Config, values: Mapping[str, str]) -> Config:
    """`config` with the texts of CONFIG SET taken in, all or none; raises ConfigError with `setting` and `reason`."""
    new: dict[str, Any] = {}
    foreign = dict(config.foreign)
    for redis, text in values.items():
        name = _BY_REDIS_NAME.get(redis.lower(), redis.lower())
        try:
            if name in SETTINGS:
                new |= _changed_setting(config, name, text)
            elif name in FOREIGN:
                foreign[name] = FOREIGN[name].taken(text)
            else:
                raise ConfigError(f"there is no setting '{shortened(redis)}'", "", "unknown")
        except SettingError as error:
            shown = "a secret value" if name in SETTINGS and SETTINGS[name].secret else f"'{shortened(text)}'"
            raise ConfigError(f"{name} {error}, not {shown}", redis.lower(), f"argument {error}") from None
    after = msgspec.structs.replace(config, **new, foreign=foreign)
    check_together(after)
    return after


def _changed_setting(config: Config, name: str, text: str) -> dict[str, Any]:
    """The field that `text` changes, if it does. Raises ConfigError, and SettingError for what is no value."""
    setting = SETTINGS[name]
    if config.backend and name in OF_THE_NODES and not setting.is_already(config.setting(name), text):
        raise ConfigError(
            f"{name} belongs to the data, which is that of the backend's nodes", name, "set it on the nodes"
        )
    if not setting.live:
        if setting.is_already(config.setting(name), text):
            # Clients and tools set what they need to be so; where it is so, nothing has to change.
            return {}
        only = setting.show(config.setting(name))
        reason = f"argument can only be '{only}' for now" if setting.fixed else "can't set immutable config"
        raise ConfigError(f"{name} cannot be changed while the cluster runs", name, reason)
    return {name.replace("-", "_"): setting.taken(config.setting(name), text)}
