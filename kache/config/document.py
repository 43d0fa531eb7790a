"""All settings as a TOML file, each with its reason: what ``kache cluster settings`` prints, and ``deploy/kache.toml``.

Pure. ``python -m kache.config.document > deploy/kache.toml`` writes the latter anew. Values are written as a person would:
``64mb``, not 67108864.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from kache.config.kinds import Setting, exact_size
from kache.config.settings import SETTINGS, Config

__all__ = ["literal", "settings_file", "settings_text"]

WIDTH = 110
HEAD = """\
# The settings of a Kache cluster: kache cluster start --config FILE. Every line shows a default; take the # away to change it.
#
# Each is also an option (--maxmemory-policy) and a variable (KACHE_MAXMEMORY_POLICY), which win over this file. SIGHUP reads
# it again; CONFIG REWRITE writes into it what was changed at run time, and keeps comments.

"""


def literal(setting: Setting, value: Any) -> str:
    """`value` as TOML. JSON's strings, numbers and booleans are TOML's too."""
    kind = setting.kind
    if kind.name == "size" or (kind.name == "size or share" and value >= 0):
        size = exact_size(value)
        return size if size.isdigit() else json.dumps(size)
    if kind.name == "list":
        return json.dumps(list(value))
    if kind.name in ("mode", "size or share") or kind.merge is not None:
        return json.dumps(setting.show(value))
    return json.dumps(value, ensure_ascii=False)


def _entry(name: str, setting: Setting, value: Any, mark: str) -> str:
    """A setting with what is to be known about it."""
    wanted = "" if setting.kind.name == "text" else setting.wanted()
    facts = f"{wanted[:1].upper()}{wanted[1:]}." if wanted else ""
    if setting.live:
        facts += " CONFIG SET changes it."
    if setting.fixed:
        facts += " It cannot be chosen yet."
    comment = [line for text in (setting.doc, facts.strip()) for line in textwrap.wrap(text, WIDTH - 2)]
    lines = [f"# {line}" for line in comment]
    return "\n".join([*lines, f"{mark if not setting.fixed else '#'}{name} = {literal(setting, value)}"])


def settings_text() -> str:
    """Every setting with its default, as TOML that can be pasted into a file."""
    defaults = Config()
    return "\n\n".join(_entry(name, each, defaults.setting(name), "") for name, each in SETTINGS.items()) + "\n"


def settings_file() -> str:
    """The same as a file that changes nothing until somebody takes a # away."""
    defaults = Config()
    return HEAD + "\n\n".join(_entry(name, each, defaults.setting(name), "#") for name, each in SETTINGS.items()) + "\n"


if __name__ == "__main__":
    print(settings_file(), end="")
