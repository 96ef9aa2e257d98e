"""The extractor `ditf` of hloc (Hierarchical-Localization), and of the copy of it in imcui.

hloc loads the one subclass of its BaseModel in `hloc.extractors.NAME`, so that module is registered
in the running process.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from kornia_ditf.adapters.hosts import DEFAULTS, NAME, add_module, make_feature


def switch_on(root: str) -> None:
    """Add `ROOT.extractors.ditf`."""
    base = import_module(f"{root}.utils.base_model").BaseModel
    import_module(f"{root}.extractors")
    add_module(f"{root}.extractors.{NAME}", lambda: extractor_class(base))


def extractor_class(base: Any) -> type:
    """Create a subclass of hloc's BaseModel."""

    class DiTFExtractor(base):  # type: ignore[misc]
        """Dense descriptors at token centres or detected keypoints."""

        default_conf = DEFAULTS
        required_inputs = ("image",)

        def _init(self, conf: Mapping[str, Any]) -> None:
            self.feature = make_feature(conf, ignored=("name",))

        def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
            # (B, N, 2) in pixels whose centres are whole numbers, which is hloc's frame too.
            lafs, responses, descriptors = self.feature(data["image"])
            return {
                "keypoints": lafs[..., 2],
                "scores": responses,
                "descriptors": descriptors.transpose(1, 2),
            }

    return DiTFExtractor
