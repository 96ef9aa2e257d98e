"""Which channels a DiTF descriptor discards, and how they become known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.config import DiTFConfig
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.loading import calibration
from kornia_ditf.loading.learned import learned_tensors
from kornia_ditf.massive import ChannelRecorder, ChannelStatistics, channels_of_gates
from kornia_ditf.preprocess import ImageLike
from kornia_ditf.types import Discarded


class DiscardingDescriptor(DenseDescriptor):
    """A descriptor of a backbone's blocks that may discard massive channels; `DiTF` is the one.

    Args:
        backbone: the transformer and its image encoder.
        config: the configuration.
    """

    channels_from = "configuration"
    """Where the configured massive channels come from; `create_ditf` writes `preset`."""

    def __init__(self, backbone: Backbone, config: DiTFConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self._found: dict[tuple[int, float], Discarded] = {}

    @abstractmethod
    def cells(self) -> Sequence[DiscardingDescriptor]:
        """Return the descriptors at every block and timestep, of which this one is made."""

    @abstractmethod
    def drawn_tokens(self, image: ImageLike, block: int) -> Iterator[Tensor]:
        """Iterate over the tokens of a block for every noise draw, each (B, N, D)."""

    @property
    def _discards(self) -> bool:
        return self.config.steps.discards

    def massive_channels(self, block: int | None = None) -> tuple[int, ...] | None:
        """Return the channels that are discarded at a block; None while they are not known."""
        known = self.known_channels(block)
        return None if known is None else known.channels

    def known_channels(self, block: int | None = None) -> Discarded | None:
        """Return the channels that are discarded at a block and their source; None if not known.

        They are, in this order: the configuration's, at its block, or those of the residual gates
        where it asks for them; those that `calibrate` or
        `describe_together` of this object found; those that `calibrate` kept on disk for these
        weights, this block and this timestep. While there are none, each image is searched by
        itself, so that no descriptor depends on another image.
        """
        if not self.config.single:
            parts = [cell.known_channels() for cell in self.cells()]
            known = [part for part in parts if part is not None]
            channels = {channel for part in known for channel in part.channels}
            sources = "; ".join(dict.fromkeys(part.source for part in known))
            whole = len(known) == len(parts)
            return Discarded(tuple(sorted(channels)), sources) if whole else None
        block = self.config.block if block is None else block
        cell = self._cell(block)
        configured = self.config.massive_channels
        if configured == "gates":
            if cell not in self._found:
                self._found[cell] = Discarded(self._channels_of_gates(block), "residual gates")
            return self._found[cell]
        if block == self.config.block and configured is not None:
            return Discarded(tuple(sorted(configured)), self.channels_from)
        if cell not in self._found and self._measured is not None:
            kept = calibration.load(self._measured, block, self.config.timestep)
            if kept is not None:
                self._found[cell] = Discarded(kept, "calibration file")
        return self._found.get(cell)

    def calibrate(
        self, images: Sequence[ImageLike], *, block: int | None = None, keep: bool = True
    ) -> ChannelStatistics:
        """Measure a block's channels on a few images, and discard the massive ones from now on.

        Channels that the configuration names stay in force at its block. `kornia_ditf.calibrate` is
        another thing: it finds a backbone's block, timestep and the rest.

        Args:
            images: any that `forward` takes.
            block: which block; None is the configured one.
            keep: also keep the result on disk for these weights, this block and timestep.

        Returns:
            statistics of every channel over all tokens, images and noise draws; with several
            blocks or timesteps all are measured, and the last one's are returned.

        Raises:
            InvalidArgumentError: no images.

        Warns:
            MassiveChannelsWarning: unusually many are massive, or images disagree.
        """
        if not self.config.single:
            return [cell.calibrate(images, keep=keep) for cell in self.cells()][-1]
        block = self.config.block if block is None else block
        recorder = ChannelRecorder()
        with torch.no_grad():
            for image in images:
                for tokens in self.drawn_tokens(image, block):
                    recorder.update(tokens)
        statistics = recorder.compute(warn=True)
        self._found[self._cell(block)] = Discarded(statistics.massive(), "calibration")
        if keep and self._measured is not None:
            calibration.save(self._measured, block, self.config.timestep, statistics.massive())
        return statistics

    def _cell(self, block: int) -> tuple[int, float]:
        return block, self.config.timestep

    @property
    def _measured(self) -> str | None:
        """Name what channels are measured of, for the calibration's files."""
        facet = self.config.facet
        if self.backbone.identity is None or facet == "input":
            return self.backbone.identity
        return f"{self.backbone.identity} {facet}"

    def gates(self, block: int | None = None) -> Tensor:
        """Return the magnitudes of the residual gates of all blocks before one, shape (gates, D).

        They follow from weights, timestep and the configuration's prompt, without an image.
        """
        block = self.config.block if block is None else block
        with torch.no_grad():
            conditioning = self.backbone.condition([self.config.prompt])
            return self.backbone.gates(self.config.timestep, conditioning, block=block)

    def _channels_of_gates(self, block: int) -> tuple[int, ...]:
        key = f"gates {self.config.timestep} {self.config.prompt!r} {self.backbone.settings()}"

        def find() -> dict[int, Tensor]:
            channels = channels_of_gates(self.gates(block))
            return {block: torch.tensor(channels, dtype=torch.long, device="cpu")}

        found = learned_tensors(self.backbone, self.backbone.identity, f"{key} {block}", find)
        return tuple(found[block].tolist())
