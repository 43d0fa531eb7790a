"""Writing changed settings back into the TOML file a cluster was started with (CONFIG REWRITE).

The file keeps its comments and its order: only values of settings that differ are replaced, written as a person would
(``"4gb"``), and what the file does not name is appended. The new file replaces the old one in one step, once it is seen
to mean what it should.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from kache.config.document import literal
from kache.config.kinds import SettingError
from kache.config.settings import SETTINGS, Config

__all__ = ["rewrite"]

_DEFAULTS = Config()
_LINE = re.compile(
    r"""^(\s*(?P<key>[A-Za-z0-9_-]+)\s*=\s*)(?:"(?:\\.|[^"\\])*"|'[^']*'|[^"'#\[]+?)(?P<rest>\s*(?:\#.*)?)$"""
)
"""A setting on one line: what is before its value, and the comment after it."""
_TABLE = re.compile(r"\s*\[")


def rewrite(path: str | None, config: Config, users: Mapping[str, str] | None = None) -> str:
    """Make `path` say what `config` says of the settings that can change while the cluster runs; "" or why it cannot.

    `users` are the rules of users by name, its table [users]; None: the file says nothing of them, and that stays so.
    """
    if path is None:
        return "The server is running without a config file"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        new = rewritten_text(text, config, users)
        _check(new, config, users)
        _replace(path, new)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, SettingError) as error:
        return f"the configuration file {path} cannot be rewritten: {error}"
    return ""


def _replace(path: str, text: str) -> None:
    """Put `text` where `path` is in one step; a failure leaves nothing behind."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def rewritten_text(text: str, config: Config, users: Mapping[str, str] | None = None) -> str:
    """`text` of a TOML file with the live settings as in `config`, and the users."""
    named = {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    wanted: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = config.setting(name)
        before = _DEFAULTS.setting(name)
        if name in named:
            before = setting.taken(before, named[name])
        if setting.live and value != before and not (name == "requirepass" and config.requirepass_file):
            wanted[name] = literal(setting, value)
    lines, table = _parted(text.splitlines())
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        name = match["key"].replace("_", "-") if match else ""
        if match and name in wanted:
            lines[number] = f"{match[1]}{wanted.pop(name)}{match['rest']}"
    lines += [f"{name} = {value}" for name, value in wanted.items()]
    if users is not None:
        table = _table_of(table, users)
    return "\n".join([*lines, *table]) + "\n"


def _parted(lines: list[str]) -> tuple[list[str], list[str]]:
    """The settings, and the table of users behind them: what is added to the settings stands before it."""
    for number, line in enumerate(lines):
        if _TABLE.match(line):
            return lines[:number], lines[number:]
    return lines, []


def _table_of(before: list[str], users: Mapping[str, str]) -> list[str]:
    """The table [users], with the comments that it had."""
    kept = [line for line in before[1:] if not line.strip() or line.lstrip().startswith("#")]
    named = [f"{_quoted(name)} = {_quoted(rules)}" for name, rules in users.items()]
    return [before[0] if before else "[users]", *kept, *named] if before or named else []


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _check(text: str, config: Config, users: Mapping[str, str] | None) -> None:
    """Raises SettingError unless `text` says what `config` does: what is written over several lines is not replaced."""
    try:
        named = {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    except tomllib.TOMLDecodeError:
        raise SettingError("it names a changed setting over several lines; write it on one") from None
    written = named.pop("users", {})
    if users is not None and written != users:
        raise SettingError("its table [users] cannot be replaced; write it at the end, one line for each user")
    for name, value in named.items():
        setting = SETTINGS[name]
        if setting.live and setting.taken(_DEFAULTS.setting(name), value) != config.setting(name):
            raise SettingError(f"{name} would still be {value!r}")
