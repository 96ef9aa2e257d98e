"""Dense descriptors of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_ditf.errors import DamagedFileError, InvalidArgumentError
from kornia_ditf.types.frame import Frame, grid_centres
from kornia_ditf.types.storage import decode, encode
from kornia_ditf.utils.checks import check_tensor
from kornia_ditf.utils.files import atomic_write, read_sealed, save_sealed
from kornia_ditf.utils.picture import Picture
from kornia_ditf.utils.precision import widen
from kornia_ditf.utils.values import Check, raise_failed, require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Discarded:
    """Channels that were discarded from an image's tokens, and their source.

    Args:
        channels: in ascending order; or which of D channels, bool, shape (D,), on any device: they
            are read from it when they are first asked for.
        source: `preset`, `configuration`, `calibration`, `calibration file`, `images described
            together` or `this image`; a fusion joins those of its parts.

    Example:
        >>> Discarded(torch.tensor([False, True, True]), "this image")
        Discarded(channels=(1, 2), source='this image')
    """

    __slots__ = ("_channels", "source")

    def __init__(self, channels: Sequence[int] | Tensor, source: str) -> None:
        self._channels = channels if isinstance(channels, Tensor) else tuple(channels)
        self.source = source

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels, in ascending order."""
        if isinstance(self._channels, Tensor):
            marked = self._channels.cpu().numpy()
            self._channels = tuple(int(channel) for channel in marked.nonzero()[0])
        return self._channels

    def __repr__(self) -> str:
        return f"Discarded(channels={self.channels}, source={self.source!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Discarded):
            return NotImplemented
        return (self.channels, self.source) == (other.channels, other.source)

    def __hash__(self) -> int:
        return hash((self.channels, self.source))


@dataclass(frozen=True, slots=True, eq=False)
class DescriptorMap:
    """Dense descriptors of an image, or of a batch of images of equal size.

    Args:
        data: descriptors on the token grid, shape (B, D, rows, columns), not normalised.
        frame: how the image's pixels map onto the model's.
        discarded: what was discarded from each image, B of them; empty where nothing was, or
            nobody told.
        checks: conditions on an accelerator's values that were not read yet; see `check`.
        parts: channels of each block or descriptor that was joined; empty where none were.

    Raises:
        InvalidArgumentError: data has not four axes, or one is empty.

    Example:
        >>> frame = Frame(image_size=(32, 32), model_size=(32, 32))
        >>> descriptors = DescriptorMap(torch.randn(1, 8, 4, 4), frame)
        >>> descriptors.at(torch.tensor([[[3.5, 3.5]]])).shape
        torch.Size([1, 1, 8])
    """

    data: Tensor
    frame: Frame
    discarded: tuple[Discarded, ...] = ()
    checks: list[Check] = field(default_factory=list, repr=False)
    parts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_tensor(self.data, "descriptor data", "(B, D, rows, columns)", filled=True)

    def __repr__(self) -> str:
        (height, width), (rows, columns) = self.frame.image_size, self.grid
        images = f"{len(self)} images of " if len(self) > 1 else ""
        dtype = str(self.data.dtype).removeprefix("torch.")
        discarded = {
            f"{len(each.channels)} discarded ({each.source})"
            for each in self.discarded
            if each.channels
        }
        shown = ", ".join(
            [
                f"{images}{width} x {height} px",
                f"{columns} x {rows} tokens",
                f"{self.data.shape[1]} channels",
                *sorted(discarded),
                f"{dtype} on {self.data.device}",
            ]
        )
        return f"DescriptorMap({shown})"

    def _repr_png_(self) -> bytes:
        return self.pca(foreground=False, long_side=512)._repr_png_() or b""

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> DescriptorMap:
        """Take some images of the batch; a single index returns a map with B = 1."""
        try:
            if isinstance(index, int | slice):
                rows = range(len(self))[index]
                chosen = [rows] if isinstance(rows, int) else list(rows)
            else:
                chosen = torch.arange(len(self), device="cpu")[index].reshape(-1).tolist()
        except IndexError as error:
            raise IndexError(f"image {index} of a batch of {len(self)}") from error
        discarded = tuple(self.discarded[row] for row in chosen) if self.discarded else ()
        # A range of rows shares the memory of the whole.
        adjacent = chosen == list(range(chosen[0], chosen[0] + len(chosen))) if chosen else False
        part = slice(chosen[0], chosen[-1] + 1) if adjacent else chosen
        return replace(self, data=self.data[part], discarded=discarded)

    def __iter__(self) -> Iterator[DescriptorMap]:
        return (self[index] for index in range(len(self)))

    @staticmethod
    def cat(maps: Sequence[DescriptorMap]) -> DescriptorMap:
        """Join maps of equally large images to a batch, as a `DataLoader`'s `collate_fn` does.

        Args:
            maps: at least one; of equal frames, grids and widths.

        Raises:
            InvalidArgumentError: there is none, or they differ.

        Example:
            >>> one = DescriptorMap(torch.randn(1, 8, 4, 4), Frame((32, 32), (32, 32)))
            >>> len(DescriptorMap.cat([one, one]))
            2
        """
        if not maps:
            raise InvalidArgumentError("cat needs at least one map, got none")
        first = maps[0]
        for each in maps:
            if each.frame != first.frame or each.data.shape[1:] != first.data.shape[1:]:
                raise InvalidArgumentError(
                    f"maps of a batch must be alike, got {first!r} and {each!r}: "
                    "keep maps of different images in a list"
                )
        known = all(each.discarded for each in maps)
        return replace(
            first,
            data=torch.cat([each.data for each in maps]),
            discarded=tuple(one for each in maps for one in each.discarded) if known else (),
            checks=[check for each in maps for check in each.checks],
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> DescriptorMap:
        """Move the descriptors to a device, or convert them to another dtype."""
        return replace(self, data=self.data.to(device=device, dtype=dtype))

    def cpu(self) -> DescriptorMap:
        """Move the descriptors to the CPU."""
        return self.to("cpu")

    def numpy(self) -> npt.NDArray[np.float32]:
        """Return the descriptors as a NumPy array, shape (B, D, rows, columns), float32."""
        self.check()
        return self.data.detach().cpu().float().numpy()

    def save(
        self,
        path: str | Path,
        about: Mapping[str, Any] | None = None,
        *,
        store: str | None = None,
    ) -> None:
        """Write a safetensors file, whole or not at all; equal maps give equal bytes.

        The file holds `descriptors` (B, D, rows, columns), and in its metadata `image_size`,
        `model_size`, `grid`, `discarded` and a checksum, as JSON.
        `kornia-ditf extract` writes the same format.

        Args:
            path: by convention it ends in .safetensors.
            about: more JSON values for the metadata, such as the image's name.
            store: `float32`, `float16` or `int8`, which holds a scale per token besides
                (`descriptors_scale`); None is the map's own dtype.

        Raises:
            InvalidArgumentError: there is no such dtype, or it cannot hold a value.
            OutputError: the file cannot be written.
        """
        self.check()
        tensors = {"descriptors": self.data.detach().cpu().contiguous()}
        tensors = tensors if store is None else encode(tensors, store)
        with atomic_write(path) as temporary:
            save_sealed(temporary, tensors, {**(about or {}), **self.about()})

    @staticmethod
    def load(path: str | Path, *, block: int | None = None) -> DescriptorMap:
        """Read what `save` or `kornia-ditf extract` wrote; the descriptors lie on the CPU.

        Descriptors stored as int8 become float32; other dtypes stay as they are.

        Args:
            path: the file.
            block: which block, where the file holds several.

        Raises:
            InvalidArgumentError: there is no such file, or not this block in it.
            DamagedFileError: it holds something else, or was changed or cut short.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
            >>> DescriptorMap(torch.randn(1, 8, 4, 4), Frame((32, 32), (32, 32))).save(path)
            >>> DescriptorMap.load(path)
            DescriptorMap(32 x 32 px, 4 x 4 tokens, 8 channels, float32 on cpu)
        """
        return read_map(path, block)[0]

    def pca(self, *, foreground: bool = True, long_side: int | None = None) -> Picture:
        """Draw the descriptors in three colours: their principal components.

        Args:
            foreground: as for `draw_pca`, which also draws images of different sizes in one
                basis.
            long_side: of the picture of each image, in pixels; None takes the image's own size.

        Returns:
            the picture, RGB, shape (H, W, 3); the images of a batch side by side.
        """
        package = import_module("kornia_ditf")  # what draws lies above this module
        return Picture.beside(package.draw_pca(self, foreground=foreground, long_side=long_side))

    def about(self) -> dict[str, Any]:
        """Return what a file says of the map besides its descriptors, as JSON values."""
        return {
            "image_size": list(self.frame.image_size),
            "model_size": list(self.frame.model_size),
            "grid": list(self.grid),
            "discarded": [[list(each.channels), each.source] for each in self.discarded],
            **({"parts": list(self.parts)} if self.parts else {}),
        }

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.data.shape[2], self.data.shape[3]

    def check(self) -> None:
        """Raise the error of an image or a model whose values are not sound.

        Describing on an accelerator does not wait for it, so this is known later. `tokens` and `at`
        ask first; call it before anything else is made of `data`.

        Raises:
            InvalidArgumentError: the image is not finite or not in [0, 1].
            CaptureError: a block's input is not finite.
        """
        raise_failed(self.checks)
        self.checks.clear()

    @property
    def tokens(self) -> Tensor:
        """The descriptors token by token, shape (B, rows * columns, D), row by row."""
        self.check()
        return self.data.flatten(2).transpose(1, 2)

    def centres(self) -> Tensor:
        """Return each token's centre (x, y) in image pixels, shape (rows * columns, 2)."""
        return grid_centres(self.frame.image_size, self.grid).float().to(self.data.device)

    def at(self, points: Tensor) -> Tensor:
        """Read descriptors at points of the image.

        Equals upsampling the map to the image's size (bilinear, align_corners=False) and
        indexing it, without making that tensor; between pixels it interpolates likewise.
        A point beyond the image takes the descriptor at its border.

        Args:
            points: (x, y) in image pixels, shape (B, K, 2), or (1, K, 2) for all images.

        Returns:
            descriptors of unit length, shape (B, K, D), float32.

        Raises:
            InvalidArgumentError: a wrong shape, or a point that is not finite.
        """
        if not isinstance(points, Tensor):
            raise InvalidArgumentError(f"points must be a tensor, got {type(points).__name__}")
        if points.ndim != 3 or points.shape[2] != 2 or points.shape[0] not in (1, len(self)):
            raise InvalidArgumentError(
                f"points must have the shape ({len(self)}, K, 2), got {tuple(points.shape)}"
            )
        wrong = InvalidArgumentError("points must be finite, got NaN or infinity among them")
        require(torch.isfinite(points).all(), lambda: wrong)
        self.check()
        height, width = self.frame.image_size
        wide = widen(points)
        grid = (2 * wide + 1) / wide.new_tensor([width, height]) - 1
        grid = grid.float().to(self.data.device).expand(len(self), -1, -1).unsqueeze(2)
        data = self.data.float()
        sampled = F.grid_sample(data, grid, padding_mode="border", align_corners=False)
        return unit_length(sampled.squeeze(3).transpose(1, 2))


def read_map(
    path: str | Path, block: int | None = None, content: bytes | None = None
) -> tuple[DescriptorMap, dict[str, Any]]:
    """Read a map and all that its file says of it; arguments and errors as `DescriptorMap.load`.

    Where the content is given, nothing is read, and the path only names it.
    """
    stored, about = read_sealed(path, content)
    try:
        tensors = decode(stored)
    except KeyError as error:
        raise DamagedFileError(Path(path), f"it holds int8 without {error}") from error
    name = "descriptors" if block is None else f"block_{block}"
    if name not in tensors and about.get("descriptor_blocks") == [block]:
        name = "descriptors"
    held = [key for key in tensors if key == "descriptors" or key.startswith("block_")]
    if held and name not in held:
        raise InvalidArgumentError(f"{path} holds {', '.join(sorted(held))}, got block={block}")
    try:
        data = tensors[name]
        frame = Frame(*(tuple(about[key]) for key in ("image_size", "model_size")))
        discarded = tuple(
            Discarded(tuple(channels), source) for channels, source in about.get("discarded", ())
        )
        parts = tuple(about.get("parts", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(Path(path), f"it holds no descriptors: {error!r}") from error
    data = data if data.ndim == 4 else data[None]
    return DescriptorMap(data, frame, discarded, parts=parts), about


def unit_length(vectors: Tensor) -> Tensor:
    """Scale float32 vectors, the last axis, to unit length; zero vectors stay zero."""
    # First by the largest value: the squares of small or large ones would vanish or overflow.
    tiny = torch.finfo(torch.float32).tiny
    largest = vectors.detach().abs().amax(-1, keepdim=True).clamp_min(tiny)
    return F.normalize(vectors / largest, dim=-1, eps=tiny)
