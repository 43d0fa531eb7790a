"""Writing changed settings back into the TOML file a cluster was started with (CONFIG REWRITE).

The file keeps its comments and its order: only values of settings that differ are replaced, written as a person would
(``"4gb"``), and what the file does not name is appended. The new file replaces the old one in one step, once it is seen
to mean what it should.
"""

from __future__ import annotations

import os
import re
import tomllib
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


def rewrite(path: str | None, config: Config) -> str:
    """Make `path` say what `config` says of the settings that can change while the cluster runs; "" or why it cannot."""
    if path is None:
        return "The server is running without a config file"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        new = rewritten_text(text, config)
        _check(new, config)
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


def rewritten_text(text: str, config: Config) -> str:
    """`text` of a TOML file with the live settings as in `config`."""
    named = {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    wanted: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = config.setting(name)
        before = _DEFAULTS.setting(name)
        if name in named:
            before = setting.taken(before, named[name])
        if setting.live and value != before and not (name == "requirepass" and config.requirepass_file):
            wanted[name] = literal(setting, value)
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        name = match["key"].replace("_", "-") if match else ""
        if match and name in wanted:
            lines[number] = f"{match[1]}{wanted.pop(name)}{match['rest']}"
    lines += [f"{name} = {value}" for name, value in wanted.items()]
    return "\n".join(lines) + "\n"


def _check(text: str, config: Config) -> None:
    """Raises SettingError unless `text` says what `config` does: what is written over several lines is not replaced."""
    try:
        named = {key.replace("_", "-"): value for key, value in tomllib.loads(text).items()}
    except tomllib.TOMLDecodeError:
        raise SettingError("it names a changed setting over several lines; write it on one") from None
    for name, value in named.items():
        setting = SETTINGS[name]
        if setting.live and setting.taken(_DEFAULTS.setting(name), value) != config.setting(name):
            raise SettingError(f"{name} would still be {value!r}")
