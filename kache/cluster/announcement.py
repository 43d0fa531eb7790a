"""What a cluster logs when it starts: one line of what it is and found, and what looks like a mistake."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from kache import __version__
from kache.config.kinds import exact_size, format_size, nearest_word
from kache.config.process_count import usable_cores
from kache.config.settings import SETTINGS, Config

__all__ = ["announce", "doubts", "machine_memory"]

OTHER_VARIABLES = (
    "KACHE_CONFIG", "KACHE_HOST", "KACHE_PASSWORD", "KACHE_USER", "KACHE_RUN_DIR", "KACHE_TLS", "KACHE_CACERT", "KACHE_CERT", "KACHE_KEY",
)  # fmt: skip
"""Variables that are no settings: the command line's."""

_log = logging.getLogger("kache")


def announce(config: Config, environ: Mapping[str, str]) -> None:
    """Log the start of a cluster with this effective configuration."""
    _log.info(
        "Kache %s starts as pid %d with Python %d.%d: %d usable core%s, %s of memory; %s",
        __version__,
        os.getpid(),
        *sys.version_info[:2],
        usable_cores(),
        "" if usable_cores() == 1 else "s",
        format_size(machine_memory()),
        ", ".join(_chosen(config)) or "all settings are defaults",
    )
    for warning in doubts(config, environ):
        _log.warning("%s", warning)


def _chosen(config: Config) -> Iterator[str]:
    """The settings that differ from their defaults; secrets without their values."""
    defaults = Config()
    for name, setting in SETTINGS.items():
        value = config.setting(name)
        if value != defaults.setting(name):
            shown = (
                "***" if setting.secret else format_size(value) if setting.kind.name == "size" else setting.show(value)
            )
            yield f"{name} {shown}"


LITTLE_MEMORY = 1 << 20
"""Bytes; a limit below is most likely a number whose unit is missing."""


def doubts(config: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """What looks like a mistake, in a sentence each without its full stop."""
    if config.maxmemory > machine_memory():
        yield (
            f"maxmemory {format_size(config.maxmemory)} is more than the {format_size(machine_memory())} of memory that this "
            "cluster can have: it will be killed before it evicts anything"
        )
    elif 0 < config.maxmemory < LITTLE_MEMORY:
        yield (
            f"maxmemory {exact_size(config.maxmemory)} is less than {format_size(LITTLE_MEMORY)} for all shards together: "
            "hardly a key will stay; was a unit left out?"
        )
    known = ["KACHE_" + name.replace("-", "_").upper() for name in SETTINGS]
    for variable in sorted(environ):
        if variable.startswith("KACHE_") and variable not in known and variable not in OTHER_VARIABLES:
            near = nearest_word(variable.removeprefix("KACHE_"), SETTINGS)
            meant = f"; KACHE_{near.replace('-', '_').upper()} is one" if near else ""
            yield f"the variable {variable} is no setting of Kache{meant}"


def machine_memory(root: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process and its children can have: the machine's, or less where its container has a limit."""
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path(root, name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            least = min(least, int(text))
    return least
