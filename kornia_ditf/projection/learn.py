"""Learning a projection from images, one after another: memory does not depend on their number."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import CaptureError, DiTFError, ImageError, InvalidArgumentError
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.projection.descriptor import feature_space
from kornia_ditf.projection.stored import Projection
from kornia_ditf.tiled import transformers_of, with_channels
from kornia_ditf.utils import provenance
from kornia_ditf.utils.cache import sha256
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.files import atomic_write, read_sealed, save_sealed
from kornia_ditf.utils.precision import widen

_CALIBRATION_IMAGES = 4
_EVERY_SECONDS = 60.0

Progress = Callable[[int], None]
OnError = Callable[[ImageLike, DiTFError], None]


@torch.no_grad()
def learn_projection(
    descriptor: DenseDescriptor,
    images: Sequence[ImageLike],
    channels: int = 128,
    *,
    prompt: str | None = None,
    state: str | Path | None = None,
    progress: Progress | None = None,
    on_error: OnError | None = None,
) -> Projection:
    """Learn a projection onto a descriptor's principal components from many images.

    The mean and the covariance of all tokens are summed image by image in float64, and their
    eigenvectors are taken at the end. Massive channels that are not known are found in the first
    four images, and belong to the projection.

    Args:
        descriptor: any dense descriptor. Its images' size and noise draws may differ later.
        images: each as `DenseDescriptor.forward` takes it, one image each; some hundred are usual.
        channels: components K that are kept.
        prompt: of all images, where the descriptor reads text.
        state: a file that keeps the sums while the work goes on; the same call goes on from it, and
            it is removed at the end.
        progress: is called with the number of images after each.
        on_error: is called with an image that cannot be described, which is then left out; None
            raises its error.

    Raises:
        InvalidArgumentError: more channels than the descriptor has, or too few tokens for them.
        ImageError: an image cannot be read, or none can.
        OutputError: the state cannot be written.
    """
    width = descriptor.width
    check_integer("channels", channels, minimum=1, maximum=width)
    given = list(images)
    space = feature_space(descriptor)
    usable = _readable(given[: 4 * _CALIBRATION_IMAGES])
    settled = with_channels(descriptor, lambda ditf: _channels_in(ditf, usable), "projection")
    digests = [_digest(image) for image in given]
    key = {"space": space, "images": digests, "prompt": prompt, "identity": descriptor.identity}
    path, name = None if state is None else Path(state), json.dumps(key, default=str)
    sums, kept = _Sums.read(path, name, width), time.monotonic()
    try:
        while sums.done < len(given):
            try:
                for described in settled.describe_many(given[sums.done :], prompt):
                    sums = sums.add(described.tokens)
                    if progress is not None:
                        progress(sums.done)
                    if time.monotonic() - kept > _EVERY_SECONDS:
                        sums.save(path, name)
                        kept = time.monotonic()
            except (ImageError, InvalidArgumentError, CaptureError) as error:
                if on_error is None:
                    raise
                on_error(given[sums.done], error)
                sums = sums.skip()
    except BaseException:
        sums.save(path, name)
        raise
    mean, variances, axes = sums.components(channels)
    learned = Projection(
        mean=mean.float(),
        axes=axes[:, :channels].float(),
        variances=variances[:channels].float(),
        total=float(variances.sum()),
        space=space,
        channels=tuple(ditf.massive_channels() for ditf in transformers_of(settled)),
        about={
            "identity": settled.identity,
            "images": sums.done - sums.skipped,
            "images_sha256": hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
            "tokens": sums.tokens,
            "prompt": prompt,
            "participation_ratio": round(
                float(variances.sum().square() / variances.square().sum().clamp_min(1e-30)), 2
            ),
            "versions": provenance.versions(),
        },
    )
    if path is not None:
        path.unlink(missing_ok=True)
    return learned


def _readable(images: Sequence[ImageLike]) -> list[ImageLike]:
    found: list[ImageLike] = []
    for image in images:
        try:
            as_image(image)
        except (ImageError, InvalidArgumentError):
            continue  # it is reported in its turn
        found.append(image)
    return found[:_CALIBRATION_IMAGES]


def _channels_in(ditf: DiTF, images: Sequence[ImageLike]) -> tuple[int, ...] | None:
    """Return the massive channels of a DiTF, found in images where they are not known."""
    if not ditf.config.steps.discards:
        return None
    known = ditf.massive_channels()
    if known is None and images:
        cells = DiTF(ditf.backbone, ditf.config).cells()  # the given one stays as it is
        found = [cell.calibrate(images, keep=False).massive() for cell in cells]
        known = tuple(sorted(set().union(*found)))
    return known


def _digest(image: ImageLike) -> str | None:
    if not isinstance(image, str | PathLike):
        return None
    try:
        return sha256(Path(image))
    except OSError:
        return None


class _Sums(NamedTuple):
    """Sums over the tokens of the images so far."""

    done: int
    skipped: int
    tokens: int
    total: Tensor
    moments: Tensor

    def add(self, tokens: Tensor) -> _Sums:
        """Return the sums with the tokens of another image, shape (1, N, D)."""
        wide = widen(tokens[0])
        total = self.total + wide.sum(0).cpu().double()
        moments = self.moments + (wide.T @ wide).cpu().double()
        return _Sums(self.done + 1, self.skipped, self.tokens + len(wide), total, moments)

    def skip(self) -> _Sums:
        """Return the sums after an image that cannot be described."""
        return self._replace(done=self.done + 1, skipped=self.skipped + 1)

    def components(self, needed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean, all variances in descending order, and the axes as columns."""
        if self.done == self.skipped:
            raise ImageError("no image could be described, so there is nothing to learn from")
        if self.tokens <= needed:
            raise InvalidArgumentError(
                f"{needed} components need more than {needed} tokens, and the images have "
                f"{self.tokens}; give more images, or fewer channels"
            )
        mean = self.total / self.tokens
        covariance = self.moments / self.tokens - torch.outer(mean, mean)
        variances, axes = torch.linalg.eigh(covariance)
        axes = axes.flip(1)
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        return mean, variances.flip(0).clamp_min(0), axes * largest.sign()

    def save(self, path: Path | None, key: str) -> None:
        """Store the sums in a file, if one is named."""
        if path is None or not self.done:
            return
        tensors = {"total": self.total, "moments": self.moments}
        with atomic_write(path) as temporary:
            save_sealed(temporary, tensors, {"key": key, "counts": list(self[:3])})

    @staticmethod
    def read(path: Path | None, key: str, width: int) -> _Sums:
        """Read the sums that were kept under a key; zeros where there are none."""
        if path is not None and path.exists():
            try:
                tensors, about = read_sealed(path)
                if about["key"] == key:
                    done, skipped, tokens = about["counts"]
                    return _Sums(done, skipped, tokens, tensors["total"], tensors["moments"])
            except (DiTFError, KeyError, TypeError, ValueError):
                pass  # damaged: they are summed again
        zeros = torch.zeros(width, width, dtype=torch.float64)
        return _Sums(0, 0, 0, zeros[0].clone(), zeros)
