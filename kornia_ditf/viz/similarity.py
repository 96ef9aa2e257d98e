"""Pictures of similarity maps."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from kornia_ditf.preprocess import ImageLike
from kornia_ditf.utils.checks import check_finite, check_tensor
from kornia_ditf.utils.picture import PAPER, Picture
from kornia_ditf.viz.picture import INK, as_picture, draw_dot, map_colours, stretch, to_grey

_MARK = (230, 60, 50)


def draw_similarity(
    image: ImageLike,
    similarity: Tensor,
    *,
    point: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> Picture:
    """Overlay a similarity map on an image, from dark blue (low) to yellow (high).

    Args:
        image: one image, as for `as_image`.
        similarity: one value per token, shape (rows, columns), covering the whole image.
        point: a point (x, y) in pixels to mark, such as the query point.
        limits: values of the darkest and brightest colour, by default the map's own minimum and
            maximum. Pass the same limits to make pictures comparable.

    Returns:
        the picture, shape (H, W, 3), RGB.

    Raises:
        InvalidArgumentError: a wrong shape, or a value that is not finite.

    Example:
        >>> draw_similarity(torch.rand(1, 3, 32, 48), torch.rand(4, 6), point=(9.0, 5.0)).shape
        (32, 48, 3)
    """
    import cv2

    check_tensor(similarity, "similarity", "(rows, columns)", filled=True)
    check_finite(similarity, "similarity")
    values = similarity.detach().cpu().float().numpy()
    picture = as_picture(image)
    height, width = picture.shape[:2]
    enlarged = cv2.resize(stretch(values, limits), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = map_colours(np.asarray(enlarged, np.float32), cv2.COLORMAP_VIRIDIS)
    blended = Picture.of(cv2.addWeighted(to_grey(picture), 0.4, colours, 0.6, 0))
    if point is not None:
        radius = max(3.0, max(height, width) / 80)
        for factor, colour in ((1.35, INK), (1.0, PAPER), (0.6, _MARK)):
            draw_dot(blended, point, radius * factor, colour)
    return blended
