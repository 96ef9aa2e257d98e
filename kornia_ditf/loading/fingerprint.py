"""A fingerprint of a transformer's weights that survives copying, renaming and moving them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kornia_ditf.errors import CheckpointError, HubError
from kornia_ditf.loading.checkpoint import Checkpoint

_PART = 4096
"""Bytes that are read of each tensor: reading tens of gigabytes would take minutes."""


def fingerprint(checkpoint: Checkpoint) -> str | None:
    """Hash what a transformer's files say of their tensors, and the beginning of every tensor.

    Returns:
        64 hexadecimal digits; None where a file is not on this machine.

    Raises:
        CheckpointError: a file is damaged.
    """
    try:
        names = checkpoint.weight_files("transformer")
        if not all(checkpoint.has(name) for name in names):
            return None
        # By tensor: the same weights may come in other files.
        digests = sorted(each for name in names for each in _tensors(checkpoint.file(name)))
    except HubError:
        return None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _tensors(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = []
            for name, about in header.items():
                begin, end = about["data_offsets"]
                file.seek(8 + length + begin)
                content = hashlib.sha256(file.read(min(end - begin, _PART))).hexdigest()
                found.append(f"{name} {about['dtype']} {about['shape']} {content}")
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error})") from error
