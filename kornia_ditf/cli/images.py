"""Reading an image and checking that the model can take it, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def read_fitting(
    path: Path | str, long_side: int | None, pixels_per_token: int, content: bytes | None = None
) -> Tensor:
    """Read an image, or decode the content of its file, and try whether it can be fitted.

    Returns:
        RGB in [0, 1], shape (1, 3, H, W), in the file's own size.

    Raises:
        ImageError: the file cannot be read, or the image is too small or too thin.
        InvalidArgumentError: the long side is shorter than a token.
    """
    from kornia_ditf.errors import ImageError
    from kornia_ditf.preprocess import fitted_size
    from kornia_ditf.utils.images import decode_image, read_image

    image = read_image(path) if content is None else decode_image(content, path)
    try:
        fitted_size((image.shape[2], image.shape[3]), long_side, pixels_per_token)
    except ImageError as error:
        raise ImageError(f"cannot use {path}: {error}") from error
    return image
