"""Pictures of an inspection: channels over blocks, and what treatments do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kornia_ditf.massive import MIN_RATIO
from kornia_ditf.preprocess import ImageLike, as_image
from kornia_ditf.utils.picture import Picture
from kornia_ditf.viz.inspection import Inspection
from kornia_ditf.viz.picture import figure_pixels, new_figure
from kornia_ditf.viz.similarity import draw_similarity


def draw_channels(inspection: Inspection, *, count: int = 64) -> Picture:
    """Draw how far the largest channels stand above the median channel, block by block.

    Args:
        inspection: what was measured.
        count: how many channels to draw: those with the largest ratio at any block.

    Returns:
        the picture, shape (H, W, 3), RGB.
    """
    blocks = sorted(inspection.statistics)
    ratios = torch.stack([inspection.statistics[block].ratio for block in blocks])
    largest = ratios.max(0).values.topk(min(count, ratios.shape[1])).indices
    channels = largest.sort().values
    values = ratios[:, channels].clamp_min(0.1).log10().numpy()

    width = min(16.0, 3.5 + 0.2 * len(channels))
    height = min(14.0, 2.4 + 0.2 * len(blocks))
    figure, canvas = new_figure(width, height)
    axes = figure.add_subplot()
    top = max(float(values.max()), float(np.log10(2 * MIN_RATIO)))
    shown = axes.imshow(values, aspect="auto", cmap="inferno", vmin=0, vmax=top)
    axes.set_xticks(range(len(channels)), channels.tolist(), rotation=90, fontsize=7)
    step = max(1, len(blocks) // 30)
    axes.set_yticks(range(0, len(blocks), step), blocks[::step], fontsize=8)
    axes.set_xlabel("channel")
    axes.set_ylabel("block")
    for row, block in enumerate(blocks):
        massive = set(inspection.statistics[block].massive())
        columns = [i for i, channel in enumerate(channels.tolist()) if channel in massive]
        axes.plot(columns, [row] * len(columns), "o", ms=4, mfc="none", mec="#35c8ff", mew=1.2)
    crossed = [
        i for i, channel in enumerate(channels.tolist()) if channel in (inspection.gates or ())
    ]
    row = blocks.index(inspection.block)
    axes.plot(crossed, [row] * len(crossed), "x", ms=4, mec="#35c8ff", mew=1.2)
    axes.set_title(
        "How far channels stand above the median channel (rings: massive; crosses: residual gates)",
        loc="left",
        fontsize=10,
    )
    bar = figure.colorbar(shown, ax=axes, pad=0.015)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if np.log10(tick) <= top]
    bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[f"{tick}x" for tick in ticks])
    return figure_pixels(canvas)


def draw_treatments(inspection: Inspection, image: ImageLike) -> Picture:
    """Draw the similarity maps of the treatments side by side, in one range of colours.

    Args:
        inspection: what was measured.
        image: its first image.

    Returns:
        the picture, shape (H, W, 3), RGB.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    pixels = as_image(image)[:1]
    low = min(float(values.min()) for values in inspection.similarity.values())
    limits = (min(low, 0.99), 1.0)
    count = len(inspection.similarity)
    each = 4.6
    figure, canvas = new_figure(count * each, 0.93 * each * pixels.shape[2] / pixels.shape[3] + 0.8)
    all_axes: Any = figure.subplots(1, count)
    for axes, (treatment, values) in zip(all_axes, inspection.similarity.items(), strict=True):
        axes.imshow(draw_similarity(pixels, values, point=inspection.point, limits=limits))
        contrast = inspection.contrast[treatment]
        axes.set_title(f"{treatment}   (contrast {contrast:.3f})", fontsize=10)
        axes.set_axis_off()
    colours = ScalarMappable(Normalize(*limits), "viridis")
    figure.colorbar(colours, ax=all_axes, shrink=0.8, pad=0.01).set_label("cosine with the point")
    figure.suptitle(f"Block {inspection.block}: which tokens look like the marked one", fontsize=11)
    return figure_pixels(canvas)
