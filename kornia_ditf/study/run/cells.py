"""Descriptors of several blocks and timesteps, from one forward pass for each timestep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.config import DiTFConfig
from kornia_ditf.descriptor import DiTF
from kornia_ditf.massive import ChannelRecorder, ChannelStatistics
from kornia_ditf.types import DescriptorMap
from kornia_ditf.types.joining import join_maps, mean_maps
from kornia_ditf.types.prepared import PreparedImage

Cell = tuple[int, float]
"""A block and a timestep."""


def cells_of(config: DiTFConfig) -> list[Cell]:
    """List the blocks and timesteps of which a descriptor is made."""
    return [(block, t) for block in config.all_blocks for t in config.all_timesteps]


def blocks_by_timestep(cells: Iterable[Cell]) -> dict[float, list[int]]:
    """Return the blocks that are taken of each timestep's forward."""
    found: dict[float, set[int]] = {}
    for block, timestep in cells:
        found.setdefault(timestep, set()).add(block)
    return {timestep: sorted(found[timestep]) for timestep in sorted(found)}


def describe_configs(
    backbone: Backbone,
    configs: Mapping[str, DiTFConfig],
    images: Sequence[PreparedImage],
    prompts: Sequence[str | None],
) -> list[dict[str, DescriptorMap]]:
    """Describe prepared images of one size by several configurations together.

    Args:
        backbone: of all of them.
        configs: by label; they differ in what comes after the forward, and in their timesteps.
        images: of one image each.
        prompts: one for each, or None.

    Returns:
        for each image a map by label.
    """
    # Of each configuration at one block and timestep; configurations may share them.
    parts: dict[str, DescriptorMap] = {}
    wanted = blocks_by_timestep(cell for config in configs.values() for cell in cells_of(config))
    for timestep, blocks in wanted.items():
        first = next(iter(configs.values())).at(blocks[0], timestep)
        taps = DiTF(backbone, first).prepared_taps(images, blocks, prompts)
        for config in configs.values():
            for block, of in cells_of(config):
                at = config.at(block, of)
                if of == timestep and str(at) not in parts:
                    ditf = DiTF(backbone, at)
                    parts[str(at)] = ditf.finish(block, taps[block], images[0].frame)
    maps = {label: _join(config, parts) for label, config in configs.items()}
    return [
        {label: replace(each[row], frame=image.frame) for label, each in maps.items()}
        for row, image in enumerate(images)
    ]


def _join(config: DiTFConfig, parts: Mapping[str, DescriptorMap]) -> DescriptorMap:
    means = [
        mean_maps([parts[str(config.at(block, t))] for t in config.all_timesteps])
        for block in config.all_blocks
    ]
    return means[0] if config.blocks is None else join_maps(means)


def measure_channels(
    ditf: DiTF, images: Iterable[PreparedImage], cells: Iterable[Cell]
) -> dict[Cell, ChannelStatistics]:
    """Measure the channels of blocks at timesteps over some images, one after another."""
    wanted = blocks_by_timestep(cells)
    recorders = {(b, t): ChannelRecorder() for t, blocks in wanted.items() for b in blocks}
    for image in images if recorders else ():
        for timestep, blocks in wanted.items():
            at = DiTF(ditf.backbone, ditf.config.at(blocks[0], timestep))
            for block, tap in at.prepared_taps([image], blocks).items():
                recorders[block, timestep].update(tap.x)
    return {cell: recorder.compute() for cell, recorder in recorders.items()}


def shares_of(configs: Mapping[str, DiTFConfig]) -> dict[str, float]:
    """Return the part of the forwards that each configuration would take by itself."""
    every = {t for config in configs.values() for t in config.all_timesteps}
    return {label: len(c.all_timesteps) / len(every) for label, c in configs.items()}
