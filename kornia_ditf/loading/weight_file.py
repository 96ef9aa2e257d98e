"""Single files of weights, safetensors or GGUF: what they hold, and their tensors one by one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.errors import CheckpointError, MissingExtraError
from kornia_ditf.loading.header import damaged
from kornia_ditf.loading.other_files import explain_content, explain_tensors
from kornia_ditf.loading.quantisation import find_scales, refuse_quantised, rescale
from kornia_ditf.utils.borrowing import is_aligned

_SHARD = re.compile(r"-\d+-of-\d+\.(safetensors|gguf)$")


def as_file(source: object) -> Path | None:
    """Return the file that a source names, `~` expanded; None if there is none.

    Raises:
        CheckpointError: it is no file of weights that is read, or one shard of several.
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
    told = explain_content(path)
    if told is not None:
        raise CheckpointError(told)
    if _SHARD.search(path.name):
        raise CheckpointError(f"{path} is one shard of several; name the folder that holds them")
    return path


class WeightFile:
    """The tensors of a safetensors or GGUF file; each is read when it is asked for.

    float8 weights with a scale beside each are multiplied by it.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is damaged, cut short, or quantised in a way that is not known.
        MissingExtraError: it is GGUF, and the package that reads it is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.is_gguf = file.read(4) == b"GGUF"
        self._read_gguf() if self.is_gguf else self._read_safetensors()

    @property
    def identity(self) -> str:
        """Which weights these are: name, size and time of change, not read."""
        stat = self.path.stat()
        key = f"{self.path.name} {stat.st_size} {stat.st_mtime_ns}"
        return f"{self.path.name}@{hashlib.sha256(key.encode()).hexdigest()[:40]}"

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a tensor takes in the file."""
        return self._sizes[name]

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
                return value if is_aligned(value) else value.clone()
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
        """Say what a file holds that is no transformer; None where nothing gives it away."""
        told = explain_tensors(self.path, self.tensors, self.metadata)
        return f"{told} (its architecture: {self.kind})" if told and self.kind else told

    def explain(self) -> str:
        """Say what a file that holds no transformer of a known family holds instead."""
        first = next(iter(self.tensors), None)
        told = "it holds no tensor" if first is None else f"its first tensor: {first!r}"
        return self.other() or f"{self.path} holds no transformer of a known family ({told})"

    def _read_safetensors(self) -> None:
        from safetensors import SafetensorError, safe_open

        from kornia_ditf.loading.header import read_header

        header = read_header(self.path)
        self.kind, self.metadata = "", header.metadata
        self._scales = find_scales(header)
        dropped = {*self._scales.values(), *(n for n in header.dtypes if _is_scale(n))}
        names = [name for name in header.dtypes if name not in dropped]
        plain = {n: d for n, d in header.dtypes.items() if n not in dropped}
        refuse_quantised(
            str(self.path), type(header)(plain, {} if self._scales else header.metadata)
        )
        try:
            opened: Any = safe_open(self.path, "pt")
            shapes = {name: opened.get_slice(name).get_shape() for name in names}
        except (SafetensorError, OSError) as error:
            raise damaged(self.path, error) from error
        self._open = opened
        self.tensors = {n: torch.empty(shape, device="meta") for n, shape in shapes.items()}
        bits = {n: int(re.sub(r"\D.*", "", re.sub(r"^\D+", "", d)) or 8) for n, d in plain.items()}
        self._sizes = {n: t.numel() * bits[n] // 8 for n, t in self.tensors.items()}

    def _read_gguf(self) -> None:
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise MissingExtraError(
                f"{self.path} is a GGUF file, which needs: pip install 'kornia-ditf[gguf]'"
            ) from error
        try:
            reader = GGUFReader(self.path, "c")  # mapped; what is written to it stays in memory
            self._gguf: Mapping[str, Any] = {each.name: each for each in reader.tensors}
            field = reader.fields.get("general.architecture")
            self.kind = "" if field is None else str(field.contents())
            self.metadata = {}
        except Exception as error:  # of NumPy and of its own
            raise damaged(self.path, error) from error
        self.tensors = {
            name: torch.empty([int(side) for side in each.shape[::-1]], device="meta")
            for name, each in self._gguf.items()
        }
        self._sizes = {name: int(each.n_bytes) for name, each in self._gguf.items()}

    @cached_property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(self._sizes.values())


def _is_scale(name: str) -> bool:
    return name == "scaled_fp8" or name.endswith((".scale_input", ".input_scale"))
