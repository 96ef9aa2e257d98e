"""Kornia's learned matchers: LoFTR; DISK, ALIKED, DeDoDe and XFeat, alone or with LightGlue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kornia_ditf.errors import HubUnreachableError, MissingExtraError
from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec
from kornia_ditf.matchers.opencv import LocalFeatures
from kornia_ditf.types import Matches
from kornia_ditf.utils.checks import read_device
from kornia_ditf.utils.isolation import building


class _Model(NamedTuple):
    """A matcher of `kornia.feature`: its class, publication, licence and LightGlue's weights."""

    kind: str
    source: str
    license: str = "Apache-2.0"
    lightglue: str = ""


_MODELS = {
    "loftr": _Model("LoFTR", "Sun et al., arXiv 2104.00680"),
    "disk": _Model("DISK", "Tyszkiewicz et al., arXiv 2006.13566", lightglue="disk"),
    "aliked": _Model("ALIKED", "Zhao et al., arXiv 2304.03608", "BSD-3-Clause", "aliked"),
    "dedode": _Model("DeDoDe", "Edstedt et al., arXiv 2308.08479", "MIT", "dedodeb"),
    "xfeat": _Model("XFeat", "Potje et al., arXiv 2404.19174"),
}


class LoFTRMatcher(ImageMatcher):
    """LoFTR: dense matches of two grey images, without keypoints.

    Args:
        pretrained: `outdoor`, `indoor` or `indoor_new`.
        random_weights: take random weights, which match nothing rightly, instead of trained ones.
        device: where it runs.
    """

    multiple = 8

    def __init__(
        self,
        *,
        pretrained: str = "outdoor",
        random_weights: bool = False,
        device: str = "cpu",
    ) -> None:
        features = _kornia_feature("loftr")
        self.device = read_device(device)
        with _weights("loftr", random_weights):
            model = features.LoFTR(pretrained=None if random_weights else pretrained)
        self.model = model.eval().to(self.device)

    def features(self, image: Tensor, name: str) -> Tensor:
        from kornia.color import rgb_to_grayscale

        grey: Tensor = rgb_to_grayscale(image).to(self.device)
        return grey

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        found = self.model({"image0": features_a, "image1": features_b})
        return Matches(found["keypoints0"], found["keypoints1"], found["confidence"])


class KorniaFeatures(LocalFeatures):
    """A learned feature of Kornia by name: `disk`, `aliked`, `dedode` or `xfeat`.

    Args:
        name: which.
        lightglue: match by LightGlue and not by nearest neighbours.
        ratio: as for `OpenCVMatcher`; without LightGlue only.
        max_keypoints: of each image; the strongest are kept.
        random_weights: take random weights, which match nothing rightly, instead of trained ones.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        *,
        lightglue: bool = False,
        ratio: float | None = None,
        max_keypoints: int = 2048,
        random_weights: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(ratio=ratio, max_keypoints=max_keypoints)
        features = _kornia_feature(name)
        self.device, self.glue = read_device(device), None
        self.find: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = getattr(self, f"_{name}")
        with _weights(name, random_weights):
            model = _build(getattr(features, _MODELS[name].kind), name, random_weights)
        self.model = model.eval().to(self.device)
        if lightglue:
            kind = _MODELS[name].lightglue
            with _weights(f"{kind} LightGlue", random_weights):
                known = features.LightGlue.features[kind]
                settings = {**known, "weights": None} if random_weights else {}
                model = features.LightGlue(None if random_weights else kind, **settings)
            self.glue = model.eval().to(self.device)

    def features(self, image: Tensor, name: str) -> tuple[Tensor, ...]:
        points, scores, vectors = self.find(image.to(self.device))
        kept = scores.argsort(descending=True, stable=True)[: self.max_keypoints]
        size = torch.tensor([[image.shape[3], image.shape[2]]], device=self.device)
        return points[kept].float(), vectors[kept].float(), size

    def compare(self, features_a: Any, features_b: Any) -> Matches:
        if self.glue is None or min(len(features_a[0]), len(features_b[0])) < 2:
            return super().compare(features_a, features_b)
        data = {
            f"image{index}": {
                "keypoints": points[None],
                "descriptors": vectors[None],
                "image_size": size,
            }
            for index, (points, vectors, size) in enumerate((features_a, features_b))
        }
        found = self.glue(data)
        nearest, scores = found["matches0"][0], found["matching_scores0"][0]
        kept = nearest > -1
        return Matches(features_a[0][kept], features_b[0][nearest[kept]], scores[kept])

    def _disk(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model(image, n=self.max_keypoints, pad_if_not_divisible=True)[0]
        return found.keypoints, found.detection_scores, found.descriptors

    def _aliked(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model(image)[0]
        return found.keypoints, found.keypoint_scores, found.descriptors

    def _dedode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        points, scores, vectors = self.model(image, n=self.max_keypoints)
        return points[0] - 0.5, scores[0], vectors[0]  # its pixel centres lie at .5

    def _xfeat(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model.detectAndCompute(image, top_k=self.max_keypoints)[0]
        return found["keypoints"], found["scores"], found["descriptors"]


def _build(model: Any, name: str, random_weights: bool) -> Any:
    if random_weights:
        return model(descriptor_model="B") if name == "dedode" else model()
    if name == "dedode":
        return model.from_pretrained(descriptor_weights="B-upright", amp_dtype=torch.float32)
    return model.from_pretrained()


@contextmanager
def _weights(name: str, random_weights: bool) -> Iterator[None]:
    """Build a model, with the same random weights every time where they are wanted."""
    with building(torch.float32), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            yield
        except (OSError, RuntimeError) as error:
            if random_weights:
                raise
            reason = " ".join(str(error).split())[:200]
            raise HubUnreachableError(
                f"the weights of Kornia's {name} cannot be downloaded ({reason}); put them into "
                f"{torch.hub.get_dir()}/checkpoints, or try without them: random_weights=true"
            ) from error


def _kornia_feature(name: str) -> Any:
    reason = _lacks(name)
    if reason:
        raise MissingExtraError(reason)
    import kornia.feature

    return kornia.feature


def _lacks(name: str) -> str:
    import kornia

    if find_spec(f"kornia.feature.{name}") is not None:
        return ""
    return f"kornia {kornia.__version__} has no {_MODELS[name].kind}: pip install -U kornia"


def _spec(name: str, lightglue: bool) -> MatcherSpec:
    model, glue = _MODELS[name], ", with LightGlue, arXiv 2306.13643" if lightglue else ""
    features = partial(KorniaFeatures, name, lightglue=lightglue)
    return MatcherSpec(
        name=f"{name}-lightglue" if lightglue else name,
        load=LoFTRMatcher if name == "loftr" else features,
        source=f"{model.source}{glue}; kornia.feature",
        license=model.license,
        lacks=partial(_lacks, name),
    )


SPECS = (
    *(_spec(name, False) for name in _MODELS),
    *(_spec(name, True) for name, model in _MODELS.items() if model.lightglue),
)
