"""Massive channels that were measured, kept on disk per weights, block and timestep."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kornia_ditf.utils.cache import cache_folder, is_sound, write_checked

_RULE = 2  # of finding massive channels; what an earlier rule found is not read


def load(identity: str, block: int, timestep: float) -> tuple[int, ...] | None:
    """Return the massive channels kept for these weights; None where there are none."""
    path = _path(identity, block, timestep)
    if not is_sound(path):
        return None
    return tuple(json.loads(path.read_text("utf-8"))["massive_channels"])


def save(identity: str, block: int, timestep: float, channels: tuple[int, ...]) -> Path:
    """Store massive channels for these weights, block and timestep, and return the file's path.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    path = _path(identity, block, timestep)
    record = {"identity": identity, "block": block, "timestep": timestep}
    with write_checked(path) as temporary:
        text = json.dumps({**record, "massive_channels": channels}, indent=1)
        temporary.write_text(text, "utf-8")
    return path


def _path(identity: str, block: int, timestep: float) -> Path:
    key = hashlib.sha256(f"{identity}\n{block}\n{float(timestep)}\n{_RULE}".encode()).hexdigest()
    return cache_folder() / "massive" / f"{key[:32]}.json"
