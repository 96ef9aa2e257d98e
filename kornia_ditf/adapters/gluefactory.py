"""The extractor of glue-factory: `name: kornia_ditf.adapters.gluefactory` in a configuration.

glue-factory imports the module that a configuration names and takes its `__main_model__`, so
`use_in` is not needed; the class is created on first access.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.adapters.hosts import DEFAULTS, NAME, add_module, make_feature

_OWN = ("name", "trainable", "freeze_batch_normalization", "timeit", "dense_outputs")


def switch_on(root: str) -> None:
    """Add `ROOT.models.extractors.ditf`, so that `extractors.ditf` is a name as well."""
    base = import_module(f"{root}.models.base_model").BaseModel
    import_module(f"{root}.models.extractors")
    add_module(f"{root}.models.extractors.{NAME}", lambda: extractor_class(base))


def __getattr__(name: str) -> Any:
    if name != "__main_model__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _main_model()


@cache
def _main_model() -> type:
    base = import_module("gluefactory.models.base_model").BaseModel
    made = extractor_class(base)
    made.__module__ = __name__
    return made


def extractor_class(base: Any) -> type:
    """Create a subclass of glue-factory's BaseModel."""

    class DiTFExtractor(base):  # type: ignore[misc]
        """Dense descriptors at token centres or detected keypoints."""

        default_conf = {**DEFAULTS, "trainable": False, "dense_outputs": False}  # noqa: RUF012
        required_data_keys = ["image"]  # noqa: RUF012

        def _init(self, conf: Any) -> None:
            self.feature = make_feature(conf, ignored=_OWN)
            self.set_initialized()

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            image = data["image"]
            lafs, responses, descriptors = self.feature(image, _unpadded(data))
            found = {
                # pixel centres are at halves in glue-factory
                "keypoints": lafs[..., 2] + 0.5,
                "keypoint_scores": responses,
                "descriptors": descriptors,
            }
            if self.conf.dense_outputs:
                found["dense_descriptors"] = self.feature.descriptor.dense(image)
            return {name: value.to(image) for name, value in found.items()}

        def loss(self, pred: Any, data: Any) -> Any:
            raise NotImplementedError("the descriptor is frozen")

    return DiTFExtractor


def _unpadded(data: Mapping[str, Tensor]) -> Tensor | None:
    """Return a mask (B, 1, H, W) of the unpadded pixels, from `image_size` (w, h) of each image."""
    size = data.get("image_size")
    if size is None:
        return None
    height, width = data["image"].shape[-2:]
    rows = torch.arange(height, device=size.device) < size[:, 1, None]
    columns = torch.arange(width, device=size.device) < size[:, 0, None]
    return (rows[:, :, None] & columns[:, None, :])[:, None]
