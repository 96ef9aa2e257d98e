"""Descriptors of a video's frames: one map per frame, in windows that fit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from kornia_ditf.backbones.video import VideoBackbone, split_frames
from kornia_ditf.config import DiTFConfig
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.types import DescriptorMap, Tap
from kornia_ditf.types.prepared import PreparedImage
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.video.frames import VideoFrame, read_frames, windows


class VideoDiTF(DiTF):
    """A `DiTF` on a video model, which takes the images of a batch as the frames of one clip.

    A video model's VAE compresses time: after the first, one latent frame covers several frames
    (`VideoBackbone.frames_per_latent`, 4 to 8). So that each frame has descriptors of its own, it
    is shown for as long as one latent frame lasts, which costs so many times the encoding and the
    tokens. Or else the frames of a latent frame share its descriptors.

    Args:
        backbone: a video model.
        config: as of `DiTF`.
        every_frame: whether each frame has descriptors of its own.

    Raises:
        InvalidArgumentError: the backbone is not a video model, or has no such block or timestep.
    """

    def __init__(
        self, backbone: VideoBackbone, config: DiTFConfig, *, every_frame: bool = True
    ) -> None:
        if not isinstance(backbone, VideoBackbone):
            raise InvalidArgumentError(
                f"{type(backbone).__name__} is not a video model; describe single frames with DiTF"
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

    def prepared_taps(
        self,
        images: Sequence[PreparedImage],
        blocks: Sequence[int],
        prompts: str | Sequence[str | None] | None = None,
    ) -> dict[int, Tap]:
        """Capture a clip's blocks; one prompt for all frames, and a row of the taps per frame."""
        texts = prompts if prompts is None or isinstance(prompts, str) else list(set(prompts))
        taps = super().prepared_taps(images, blocks, texts)
        places = self._latent_frames(len(images))
        frames = int(places[-1]) + 1
        return {block: split_frames(tap, frames).take(places) for block, tap in taps.items()}

    def _forwards(self, images: int) -> list[slice]:
        return [slice(images)]

    def _arrange(self, pixels: Sequence[Tensor]) -> Tensor:
        """Arrange frames (T, 3, H, W) as a clip, each shown as long as its latent frames last."""
        assert isinstance(self.backbone, VideoBackbone)
        frames = torch.cat(list(pixels))
        ratio, last = self.backbone.frames_per_latent, len(frames) - 1
        if self.every_frame:
            times = ratio * self.backbone.latents_per_token
            shown = [0, *(n for n in range(1, last + 1) for _ in range(times))]
        else:
            count = 1 + ratio * int(self._latent_frames(len(frames))[-1])
            shown = [min(number, last) for number in range(count)]
        return frames[shown].transpose(0, 1)[None]

    def _latent_frames(self, frames: int) -> Tensor:
        """Return which latent frame holds each of a clip's frames."""
        assert isinstance(self.backbone, VideoBackbone)
        numbers = torch.arange(frames, device="cpu")
        if self.every_frame:
            return numbers * self.backbone.latents_per_token
        ratio = self.backbone.frames_per_latent
        return (numbers + ratio - 1) // ratio


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
        maps with B = 1, in the order of the frames, on demand.

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
    read = (f if isinstance(f, VideoFrame) else VideoFrame(as_image(f), 0.0) for f in frames)
    own = for_video(descriptor, every_frame)
    return (
        described
        for some in windows(read, window)
        for described in own.describe_together([frame.image for frame in some], prompt)
    )


def for_video(descriptor: DenseDescriptor, every_frame: bool) -> DenseDescriptor:
    """Return the descriptor for one video, which may find massive channels for itself."""
    if not isinstance(descriptor, DiTF):
        return descriptor
    own = copy(descriptor)
    if isinstance(descriptor.backbone, VideoBackbone):
        own = VideoDiTF(descriptor.backbone, descriptor.config, every_frame=every_frame)
        own.channels_from = descriptor.channels_from
    own._found = dict(descriptor._found)
    return own
