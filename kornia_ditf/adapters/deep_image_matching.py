"""The extractor `ditf` of deep-image-matching.

Its loader takes the one subclass of ExtractorBase in `deep_image_matching.extractors.NAME`, so that
module is registered in the running process, and a pipeline is added to its configurations.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kornia_ditf.adapters.hosts import DEFAULTS, NAME, add_module, read_options

PIPELINE = f"{NAME}+kornia_matcher"
"""Name of the pipeline that is added."""


def switch_on(root: str) -> None:
    """Add `ROOT.extractors.ditf` and the pipeline `ditf+kornia_matcher`."""
    base = import_module(f"{root}.extractors.extractor_base").ExtractorBase
    add_module(f"{root}.extractors.{NAME}", lambda: extractor_class(base))
    config = import_module(f"{root}.config")
    if NAME not in config.opt_zoo["extractors"]:
        config.opt_zoo["extractors"].append(NAME)
    config.confs[PIPELINE] = {
        "extractor": {"name": NAME},
        "matcher": {"name": "kornia_matcher", "match_mode": "mnn"},
    }


def extractor_class(base: Any) -> type:
    """Create a subclass of deep-image-matching's ExtractorBase."""

    class DiTFExtractor(base):  # type: ignore[misc]
        """Dense descriptors at token centres or detected keypoints."""

        _default_conf = DEFAULTS
        required_inputs = ("image",)
        grayscale = False
        as_float = False

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            from kornia_ditf.adapters.opencv import OpenCVFeature

            options = read_options(self.config["extractor"], ignored=("name",))
            options.setdefault("device", self._device)
            self._extractor = OpenCVFeature(options.pop("backbone"), **options)
            self.descriptor_size = self._extractor.descriptorSize()

        def _extract(self, image: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
            keypoints, descriptors = self._extractor.detectAndCompute(image, None)
            if descriptors is None:
                descriptors = np.zeros((0, self.descriptor_size), np.float32)
            return {
                "keypoints": np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2),
                "descriptors": descriptors.T,
                "scores": np.array([k.response for k in keypoints], np.float32),
            }

        def _frame2tensor(self, image: npt.NDArray[Any], device: str = "cpu") -> torch.Tensor:
            rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])
            return torch.from_numpy(rgb).to(device, torch.float32) / 255

    return DiTFExtractor
