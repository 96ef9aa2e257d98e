"""Headers of safetensors files: which tensors a file holds, read without any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.other_files import explain_content


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of its tensors: dtypes, shapes, and notes of the writer."""

    dtypes: Mapping[str, str]
    shapes: Mapping[str, Sequence[int]]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, no tensor.

    Raises:
        CheckpointError: the file is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            dtypes = {name: each.get_dtype() for name, each in slices.items()}
            shapes = {name: each.get_shape() for name, each in slices.items()}
            return Header(dtypes, shapes, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a weight file that cannot be read."""
    with suppress(OSError):
        if (message := explain_content(path)) is not None:
            return CheckpointError(message)
    return CheckpointError(f"{path} is damaged or cut short ({error}); download it again")
