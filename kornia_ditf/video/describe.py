"""Descriptors of a video's frames: one map per frame, in windows that fit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.backbones.video import VideoBackbone, split_frames
from kornia_ditf.config import DiTFConfig
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.massive import find_massive_channels
from kornia_ditf.noise import draw_image_noise
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.tap import checking_every_capture
from kornia_ditf.types import DescriptorMap, Discarded, Tap
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.isolation import eager
from kornia_ditf.video.frames import VideoFrame, read_frames, windows


class VideoDiTF(DiTF):
    """A `DiTF` on a video model, to which the images of a batch are the frames of one clip.

    A video model's VAE compresses time: after the first, one latent frame covers several frames
    (`VideoBackbone.frames_per_latent`, 4 to 8). So that each frame has descriptors of its own, it
    is shown for as long as one latent frame lasts, which costs so many times the encoding and the
    tokens. Or else the frames of a latent frame share its descriptors.

    Args:
        backbone: a video model.
        config: as of `DiTF`.
        every_frame: whether each frame has descriptors of its own.

    Raises:
        InvalidArgumentError: the backbone is no video model, or has no such block or timestep.
    """

    def __init__(
        self, backbone: VideoBackbone, config: DiTFConfig, *, every_frame: bool = True
    ) -> None:
        if not isinstance(backbone, VideoBackbone):
            raise InvalidArgumentError(
                f"{type(backbone).__name__} is no video model; describe frames one by one with DiTF"
            )
        super().__init__(backbone, config)
        self.every_frame = every_frame

    @property
    def identity(self) -> str | None:
        name = super().identity
        return None if name is None else f"{name} clip every_frame={self.every_frame}"

    def _like(self, config: DiTFConfig) -> VideoDiTF:
        assert isinstance(self.backbone, VideoBackbone)
        return VideoDiTF(self.backbone, config, every_frame=self.every_frame)

    @eager
    def prepared_taps(
        self,
        images: Sequence[PreparedImage],
        blocks: Sequence[int],
        prompts: str | Sequence[str | None] | None = None,
    ) -> dict[int, Tap]:
        """Capture a clip's blocks; one prompt for all frames, and a row of the taps per frame."""
        told = prompts if prompts is None or isinstance(prompts, str) else list(set(prompts))
        with self._gradients(), checking_every_capture(self.config.checks == "always"):
            clip, places = self._clip(torch.cat([image.pixels for image in images]))
            latent = self.backbone.encode(clip)
            noise = self._noise(images, latent)
            taps = self._taps(latent, noise, self._condition(told, 1), blocks)
            split = {block: split_frames(tap, latent.shape[2]) for block, tap in taps.items()}
            return {block: tap.take(places) for block, tap in split.items()}

    @eager
    def describe_together(
        self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None
    ) -> list[DescriptorMap]:
        """Describe the frames of one clip, finding massive channels that are not known in all.

        With several blocks or timesteps, those channels are found in each frame.

        Args:
            images: the frames, equally large.
            prompts: none, or one for the clip.

        Raises:
            InvalidArgumentError: frames of several sizes, or several prompts.
        """
        block = self.config.block
        prepared = [self.prepare(image) for image in images]
        told = [prompts] if prompts is None or isinstance(prompts, str) else prompts
        if not (self.config.single and self._discards and self.massive_channels() is None):
            return self.describe_prepared(prepared, told)
        taps = self.prepared_taps(prepared, [block], told)
        found = find_massive_channels([taps[block].x])
        self._found[block] = Discarded(found, "images described together")
        return list(self.finish(block, taps[block], prepared[0].frame))

    def _clip(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Arrange frames (T, 3, H, W) as a clip; say which latent frame holds which of them."""
        assert isinstance(self.backbone, VideoBackbone)
        ratio, latents = self.backbone.frames_per_latent, self.backbone.latents_per_token
        numbers = torch.arange(len(frames), device="cpu")
        if self.every_frame:
            shown = numbers.repeat_interleave(torch.where(numbers == 0, 1, ratio * latents))
            places = numbers * latents
        else:
            places = (numbers + ratio - 1) // ratio
            shown = torch.arange(1 + ratio * int(places[-1]), device="cpu").clamp(
                max=len(frames) - 1
            )
        return frames[shown.to(frames.device)].transpose(0, 1)[None], places

    def _noise(self, images: Sequence[PreparedImage], latent: Tensor) -> Tensor:
        shape = (self.config.ensemble, *latent.shape[1:])
        if not self.has_noise:
            return torch.zeros(1, device="cpu").expand(1, *shape)
        seen = [image.pixels if image.exact is None else image.exact for image in images]
        clip, _ = self._clip(torch.cat(seen))
        # A clip of one frame has the noise of its image.
        return draw_image_noise(clip.squeeze(2), shape, seed=self.config.seed)


def describe_video(
    descriptor: DenseDescriptor,
    video: str | Path | Iterable[ImageLike | VideoFrame],
    prompt: str | None = None,
    *,
    window: int = 8,
    every_frame: bool = True,
) -> Iterator[DescriptorMap]:
    """Describe the frames of a video, one map per frame, while it is read.

    At most `window` frames are held. A video model (`VideoBackbone`) sees a window as one clip,
    whose frames attend to one another; any other descriptor sees frame by frame. Massive channels
    that are not known are found in the first window, and discarded in all.

    Args:
        descriptor: any; the weights are shared, and it is left as it is.
        video: a file (see `read_frames`), or frames, each as `DenseDescriptor.forward` takes them.
        prompt: for all frames; None is the descriptor's own.
        window: frames described together.
        every_frame: for video models: whether each frame has descriptors of its own, or shares
            those of the latent frame that holds it (see `VideoDiTF`), at a fraction of the cost.

    Returns:
        maps with B = 1, in the order of the frames, as they are asked for.

    Raises:
        InvalidArgumentError: a window of no frame, or a prompt that does not fit.
        ImageError: the file cannot be read, or a frame is too small or too thin.

    Example:
        >>> import kornia_ditf as kd
        >>> frames = torch.rand(3, 1, 3, 64, 96)
        >>> maps = kd.describe_video(kd.create_descriptor("nano"), frames)
        >>> [described.frame.image_size for described in maps]
        [(64, 96), (64, 96), (64, 96)]
    """
    check_integer("window", window, 1)
    frames = read_frames(video) if isinstance(video, str | Path) else iter(video)
    return _describe_windows(for_video(descriptor, every_frame), frames, prompt, window)


def for_video(descriptor: DenseDescriptor, every_frame: bool) -> DenseDescriptor:
    """Return the descriptor for one video, which may find massive channels for itself."""
    if not isinstance(descriptor, DiTF):
        return descriptor
    own = copy(descriptor)
    if isinstance(descriptor.backbone, VideoBackbone):
        own = VideoDiTF(descriptor.backbone, descriptor.config, every_frame=every_frame)
        own.channels_from = descriptor.channels_from
    own._found = dict(descriptor._found)
    cells: Any = {key: for_video(cell, every_frame) for key, cell in descriptor._cells.items()}
    own._cells = cells
    return own


def _describe_windows(
    descriptor: DenseDescriptor,
    frames: Iterator[ImageLike | VideoFrame],
    prompt: str | None,
    window: int,
) -> Iterator[DescriptorMap]:
    read = (f if isinstance(f, VideoFrame) else VideoFrame(as_image(f), 0.0) for f in frames)
    for some in windows(read, window):
        yield from descriptor.describe_together([frame.image for frame in some], prompt)
