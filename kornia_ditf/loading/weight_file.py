"""Single files of weights, safetensors or GGUF: what they hold, and their tensors one by one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.header import damaged, read_header
from kornia_ditf.loading.other_files import explain_content, explain_tensors
from kornia_ditf.loading.quantisation import find_scales, refuse_quantised, rescale
from kornia_ditf.utils.borrowing import align
from kornia_ditf.utils.extras import import_extra

_SHARD = re.compile(r"-\d+-of-\d+\.(safetensors|gguf)$")


def as_file(source: object) -> Path | None:
    """Return the file that a source names, `~` expanded; None if there is none.

    Raises:
        CheckpointError: it is not a supported file of weights, or is one shard of several.
    """
    if not isinstance(source, str | Path):
        return None
    try:
        path = Path(source).expanduser()
        if not path.is_file():
            return None
        with path.open("rb"):
            pass
    except (OSError, RuntimeError):  # a name that is too long, or an unknown user's home
        return None
    message = explain_content(path)
    if message is not None:
        raise CheckpointError(message)
    if _SHARD.search(path.name):
        raise CheckpointError(f"{path} is one shard of several; name the folder that holds them")
    return path


def refuse_config(source: object, config: object) -> None:
    """Raise InvalidArgumentError for a `config` that goes with a source that is not a file."""
    if config is not None:
        raise InvalidArgumentError(
            f"config applies to single files, and {source} is not one; leave it out"
        )


class WeightFile:
    """The tensors of a safetensors or GGUF file; each is read when it is asked for.

    float8 weights with a scale beside each are multiplied by it.

    Args:
        path: the file.
        known: of a shard in a folder, the tensors that its model takes from it.

    Attributes:
        tensors: the shape of every tensor by its name, without memory.
        unused: tensors in the modules of the known ones that the model has no place for.

    Raises:
        CheckpointError: it is damaged, cut short, or quantised in a way that is not known.
        MissingExtraError: it is GGUF, and the package that reads it is not installed.
    """

    def __init__(self, path: Path, *, known: Collection[str] = ()) -> None:
        self.path, self.kind = path, ""
        self.metadata: Mapping[str, str] = {}
        self.is_gguf = not known and _is_gguf(path)
        self._read_gguf() if self.is_gguf else self._read_safetensors(known)

    @property
    def identity(self) -> str:
        """Which weights these are: name, size and time of change, not read."""
        stat = self.path.stat()
        key = f"{self.path.name} {stat.st_size} {stat.st_mtime_ns}"
        return f"{self.path.name}@{hashlib.sha256(key.encode()).hexdigest()[:40]}"

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a tensor takes in a GGUF file."""
        return int(self._gguf[name].n_bytes)

    def read(self, name: str) -> Tensor:
        """Read a tensor; a quantised one of a GGUF file as diffusers' GGUFParameter.

        Raises:
            CheckpointError: the file is damaged.
        """
        if self.is_gguf:
            from diffusers.quantizers.gguf.utils import GGUFParameter

            entry = self._gguf[name]
            value: Tensor = torch.from_numpy(entry.data)
            if entry.tensor_type.name in ("F32", "F16"):
                return align(value)
            quantised: Tensor = GGUFParameter(value, quant_type=entry.tensor_type)
            return quantised
        from safetensors import SafetensorError

        try:
            found: Tensor = self._open.get_tensor(name)
            scale = self._scales.get(name)
            return found if scale is None else rescale(found, self._open.get_tensor(scale))
        except (SafetensorError, OSError) as error:
            raise damaged(self.path, error) from error

    def other(self) -> str | None:
        """Return what a file without a transformer holds; None if unknown."""
        message = explain_tensors(self.path, self.tensors, self.metadata)
        return f"{message} (its architecture: {self.kind})" if message and self.kind else message

    def explain(self) -> str:
        """Explain what a file without a transformer of a known family holds instead."""
        first = next(iter(self.tensors), None)
        message = "it holds no tensor" if first is None else f"its first tensor: {first!r}"
        return self.other() or f"{self.path} holds no transformer of a known family ({message})"

    @cached_property
    def _open(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.path, "pt")

    def _read_safetensors(self, known: Collection[str]) -> None:
        header = read_header(self.path)
        self.metadata = notes = header.metadata
        self._scales = find_scales(header)
        dropped = set(self._scales.values())
        if not known:  # of a file by itself, whose exporters leave notes and scales of activations
            dropped |= {name for name in header.dtypes if _is_scale(name)}
            notes = {} if self._scales else notes
        plain = {n: d for n, d in header.dtypes.items() if n not in dropped}
        header = replace(header, dtypes=plain, metadata=notes)
        self.unused = refuse_quantised(str(self.path), header, known=known)
        self.tensors = {n: torch.empty(header.shapes[n], device="meta") for n in plain}

    def _read_gguf(self) -> None:
        gguf = import_extra("gguf", f"{self.path} is a GGUF file", "kornia-ditf[gguf]")
        try:
            reader = gguf.GGUFReader(
                self.path, "c"
            )  # mapped; what is written to it stays in memory
            self._gguf: Mapping[str, Any] = {each.name: each for each in reader.tensors}
            field = reader.fields.get("general.architecture")
            self.kind = "" if field is None else str(field.contents())
        except Exception as error:  # of NumPy and of its own
            raise damaged(self.path, error) from error
        self.tensors = {
            name: torch.empty([int(side) for side in each.shape[::-1]], device="meta")
            for name, each in self._gguf.items()
        }


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _is_scale(name: str) -> bool:
    return name == "scaled_fp8" or name.endswith((".scale_input", ".input_scale"))
