"""Correspondences between images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.utils.files import atomic_write, read_sealed, save_sealed
from kornia_ditf.utils.picture import Picture
from kornia_ditf.utils.svg import draw_lines

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_DRAWN = 100
_NAMES = ("points_a", "points_b", "scores")


class MatchArrays(NamedTuple):
    """Matches as NumPy arrays, float32; see `Matches`."""

    points_a: npt.NDArray[np.float32]
    points_b: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Correspondences between two images, in the pixels of each; or between B pairs of images.

    Args:
        points_a: (x, y) in image A, shape (K, 2) or (B, K, 2).
        points_b: (x, y) in image B, same shape; row i belongs to row i of points_a.
        scores: cosine similarities in [-1, 1], shape (K,) or (B, K).

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [20.0, 9.0]])
        >>> matches = Matches(points, points + 2, torch.tensor([0.5, 0.9]))
        >>> matches
        Matches(2 matches, scores 0.500 to 0.900, cpu)
        >>> matches[matches.scores > 0.6].points_b
        tensor([[22., 11.]])
    """

    points_a: Tensor
    points_b: Tensor
    scores: Tensor

    def __repr__(self) -> str:
        pairs = f"{len(self.scores)} pairs of " if self.scores.ndim > 1 else ""
        scores = ""
        if self.scores.numel():
            low, high = torch.aminmax(self.scores.detach().float())
            scores = f", scores {low:.3f} to {high:.3f}"
        return f"Matches({pairs}{len(self)} matches{scores}, {self.scores.device})"

    def _repr_html_(self) -> str | None:
        if self.scores.ndim != 1 or not len(self):
            return None
        best = self.best(_DRAWN)
        return f"<pre>{self!r}</pre>{draw_lines(*best.numpy())}"

    def __len__(self) -> int:
        return self.scores.shape[-1]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Matches:
        """Take some of the K matches, by numbers or a mask; one index gives one match (K = 1)."""
        chosen = torch.arange(len(self), device="cpu")[
            index.cpu() if isinstance(index, Tensor) else index
        ]
        rows = chosen.reshape(-1).to(self.scores.device)
        return Matches(
            self.points_a[..., rows, :], self.points_b[..., rows, :], self.scores[..., rows]
        )

    def __iter__(self) -> Iterator[Matches]:
        return (self[index] for index in range(len(self)))

    @staticmethod
    def cat(parts: Sequence[Matches]) -> Matches:
        """Join the matches of several parts of one pair of images; at least one part."""
        return Matches._join(parts, torch.cat, (-2, -2, -1))

    @staticmethod
    def stack(pairs: Sequence[Matches]) -> Matches:
        """Stack pairs of images with equally many matches: B of (K, 2) to one of (B, K, 2).

        Raises:
            InvalidArgumentError: there is no pair, or the numbers of matches differ.
        """
        counts = sorted({len(each) for each in pairs})
        if len(counts) > 1:
            raise InvalidArgumentError(
                f"stack takes pairs with equally many matches, got {counts[0]} to {counts[-1]}: "
                "keep them in a list, or take the best of each with best(count)"
            )
        return Matches._join(pairs, torch.stack, (0, 0, 0))

    def unbind(self) -> list[Matches]:
        """Split a batch into one `Matches` per pair of images."""
        if self.scores.ndim == 1:
            return [self]
        return [Matches(*part) for part in zip(*self._values, strict=True)]

    @staticmethod
    def _join(parts: Sequence[Matches], join: Any, axes: tuple[int, ...]) -> Matches:
        if not parts:
            raise InvalidArgumentError("there are no matches to join; pass at least one Matches")
        columns = zip(*(each._values for each in parts), strict=True)
        return Matches(*(join(column, axis) for column, axis in zip(columns, axes, strict=True)))

    @property
    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.points_a, self.points_b, self.scores

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Matches:
        """Move points and scores to a device, or convert them to another dtype."""
        return Matches(*(value.to(device=device, dtype=dtype) for value in self._values))

    def cpu(self) -> Matches:
        """Move points and scores to the CPU."""
        return self.to("cpu")

    def numpy(self) -> MatchArrays:
        """Return `points_a`, `points_b` and `scores` as NumPy arrays, float32.

        Example:
            >>> matches = Matches(torch.zeros(3, 2), torch.ones(3, 2), torch.rand(3))
            >>> points_a, points_b, scores = matches.numpy()
        """
        return MatchArrays(*(value.detach().cpu().float().numpy() for value in self._values))

    def save(self, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write `points_a`, `points_b` and `scores` to a safetensors file, whole or not at all.

        Args:
            path: by convention it ends in .safetensors.
            about: JSON values for the file's metadata, such as the images' names.

        Raises:
            OutputError: the file cannot be written.
        """
        values = zip(_NAMES, self._values, strict=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in values}
        with atomic_write(path) as temporary:
            save_sealed(temporary, tensors, about or {})

    @staticmethod
    def load(path: str | Path) -> Matches:
        """Read what `save` wrote; the tensors lie on the CPU.

        Raises:
            InvalidArgumentError: there is no such file.
            DamagedFileError: it holds something else, or was changed or cut short.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "ab.safetensors"
            >>> Matches(torch.zeros(3, 2), torch.ones(3, 2), torch.ones(3)).save(path)
            >>> Matches.load(path)
            Matches(3 matches, scores 1.000 to 1.000, cpu)
        """
        tensors, _ = read_sealed(path)
        try:
            return Matches(*(tensors[name] for name in _NAMES))
        except KeyError as error:
            raise DamagedFileError(Path(path), f"it holds no {error.args[0]}") from error

    def draw(self, image_a: Any, image_b: Any, **options: Any) -> Picture:
        """Draw the matches between their images; arguments and errors as `draw_matches`.

        Returns:
            the picture, RGB, shape (H, W, 3); a notebook shows it.
        """
        package = import_module("kornia_ditf")  # what draws lies above this module
        picture: Picture = package.draw_matches(image_a, image_b, self, **options)
        return picture

    def best(self, count: int) -> Matches:
        """Keep the matches of highest score, best first, in each pair of images."""
        order = self.scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
        rows = order.unsqueeze(-1).expand(*order.shape, 2)
        return Matches(
            self.points_a.gather(-2, rows),
            self.points_b.gather(-2, rows),
            self.scores.gather(-1, order),
        )
