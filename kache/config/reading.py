"""The configuration that a cluster starts with: options win over ``KACHE_…`` variables, those over a TOML file, that over
the defaults.

A wrong value is refused in one sentence that names the value and the place it came from. The only I/O here is reading files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kache.config.kinds import SettingError, nearest
from kache.config.rules import check_backend, check_together, check_users
from kache.config.settings import DEFAULTS, SETTINGS, Config, ConfigError, shortened

__all__ = ["load", "secret_variables"]

_FROM_FILES = ("requirepass", "tls-key-file-pass", "backend-password")
"""Secrets that may be the first line of a file, which the setting of the same name and -file says."""


def load(options: Mapping[str, object], environ: Mapping[str, str], path: str | None = None) -> Config:
    """The effective configuration.

    `options` are those typed on the command line, by name of the field; None stands for one that was not given.
    `environ` is searched for ``KACHE_<NAME>``; `path` names a TOML file (``KACHE_CONFIG`` when None).
    """
    values: dict[str, Any] = {}
    path = path or environ.get("KACHE_CONFIG") or None
    if path is not None:
        values.update(_from_file(path))
    for name in SETTINGS:
        variable = _variable(name)
        if variable in environ:
            values[name] = _read(name, environ[variable], f"the variable {variable}")
    for field, raw in options.items():
        if raw is not None:
            name = field.replace("_", "-")
            values[name] = _read(name, raw, f"the option --{name}")
    for name in _FROM_FILES:
        if values.get(f"{name}-file"):
            values[name] = _secret_of(values, name)
    if values.get("backend"):
        check_backend(values)
    config = msgspec.structs.replace(DEFAULTS, **{name.replace("-", "_"): value for name, value in values.items()})
    check_users(config)
    check_together(config)
    return config


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables of `environ` that hold a secret setting."""
    return [name for name in map(_variable, (name for name in SETTINGS if SETTINGS[name].secret)) if name in environ]


def _variable(name: str) -> str:
    """``KACHE_MAXMEMORY_POLICY`` for maxmemory-policy"""
    return "KACHE_" + name.replace("-", "_").upper()


def _secret_of(values: Mapping[str, Any], name: str) -> str:
    """The first line of requirepass-file, say; raises ConfigError when there is none, or another password."""
    source = f"{name}-file"
    path = values[source]
    if values.get(name):
        raise ConfigError(f"{name} and {source} are both set; which password is meant?", source)
    try:
        with open(path, encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{source} {path} cannot be read: {reason}.", source) from None
    if not password:
        raise ConfigError(f"{source} {path} has no password in its first line.", source)
    return str(_read(name, password, f"the file {path}"))


def _read(name: str, raw: object, origin: str) -> Any:
    setting = SETTINGS[name]
    shown = "a secret value" if setting.secret else f"'{shortened(_plain(raw))}'"
    try:
        value = setting.taken(DEFAULTS.setting(name), raw)
    except SettingError as error:
        raise ConfigError(f"{name} {error}, not {shown} ({origin}).", name, str(error)) from None
    if setting.fixed and value != DEFAULTS.setting(name):
        only = setting.show(DEFAULTS.setting(name)) or "empty"
        raise ConfigError(f"{name} can only be {only} for now, not {shown} ({origin}).", name)
    return value


def _plain(raw: object) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return " ".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)


def _from_file(path: str) -> dict[str, Any]:
    import tomllib  # only who has a file pays for it

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None
    values: dict[str, Any] = {}
    for key, raw in table.items():
        name = key.replace("_", "-")
        if name == "users":
            values[name] = _users_from_file(raw, path)
            continue
        if name not in SETTINGS:
            raise ConfigError(f"There is no setting '{key}' ({path}).{nearest(key, SETTINGS)}")
        if name in values:
            raise ConfigError(f"{name} is set twice ({path}).", name)
        values[name] = _read(name, raw, f"{path}: {key}")
    return values


def _users_from_file(raw: object, path: str) -> dict[str, str]:
    """``[users]``: a table of rules by name, which whoever knows the commands looks at."""
    if not isinstance(raw, dict) or not all(isinstance(rules, str) for rules in raw.values()):
        raise ConfigError(f'[users] has one line for each user, NAME = "rules" ({path}).', "users")
    return {str(name): str(rules) for name, rules in raw.items()}
