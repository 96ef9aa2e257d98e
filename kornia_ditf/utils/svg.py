"""Lines between two boxes as SVG, which needs no plotting library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

_WIDTH, _GAP = 300.0, 12.0


def draw_lines(
    points_a: npt.NDArray[Any], points_b: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> str:
    """Draw matches as lines between the areas that their points cover in the two images.

    Args:
        points_a: (x, y), shape (K, 2), K at least 1.
        points_b: likewise.
        scores: shape (K,); from blue for the lowest to yellow for the highest.

    Example:
        >>> import numpy as np
        >>> square = np.array([[0.0, 0.0], [9.0, 9.0]])
        >>> draw_lines(square, square, np.ones(2)).count("<line")
        2
    """
    boxes = [(points.min(0), points.max(0)) for points in (points_a, points_b)]
    extent = max(float((high - low).max()) for low, high in boxes) + 1
    zoom = _WIDTH / extent
    height = max(float(high[1] - low[1]) + 1 for low, high in boxes) * zoom
    lines, corner = [], 0.0
    placed = []
    for points, (low, high) in zip((points_a, points_b), boxes, strict=True):
        width, tall = ((high - low + 1) * zoom).tolist()
        lines.append(
            f'<rect x="{corner:.1f}" y="0" width="{width:.1f}" height="{tall:.1f}" '
            'fill="#f2f2f2" stroke="#bbb"/>'
        )
        placed.append((points - low + 0.5) * zoom + [corner, 0.0])
        corner += width + _GAP
    spread = float(scores.max() - scores.min()) or 1.0
    ranks = ((scores - scores.min()) / spread).tolist()
    for (x1, y1), (x2, y2), rank in zip(placed[0].tolist(), placed[1].tolist(), ranks, strict=True):
        lines.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="hsl({240 - 190 * rank:.0f} 80% 50%)"/>'
        )
    body = "".join(lines)
    size = f'width="{corner - _GAP:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{body}</svg>'
