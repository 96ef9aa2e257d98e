"""What is known of a backbone before a weight is loaded: a value that plugins register."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kornia_ditf.backbone import Backbone
from kornia_ditf.checks import check_integer, check_timestep
from kornia_ditf.dense import DenseDescriptor
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.plan import LoadingPlan

NEUTRAL_RULE = (
    "uncalibrated; neutral rule: the middle block, timestep 250, the training resolution, one "
    "noise draw, massive channels found when first needed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """All that is known of a backbone before a weight is loaded.

    Args:
        name: what the user types.
        repo: hub id of a repository in the diffusers layout, or a folder's path.
        pipeline: the `_class_name` in its model_index.json, by which a folder is recognised.
        load: makes the backbone; called with `source`, `block`, `dtype`, `device` and more.
        plan: works out what that would download and hold; None where nobody knows.
        blocks: number of blocks, all lists together.
        width: channels of the stream.
        pixels_per_token: side of the square of pixels that one token covers.
        block: which block's input to take, counted from 0.
        timestep: the paper's timestep in [0, 1000].
        long_side: length of the image's longest side in pixels.
        ensemble: number of noise draws.
        massive_channels: those to discard; None where they are found when first needed.
        prompt: what the model is told when the user gives no prompt.
        calibrated: whether block, timestep and massive channels were chosen by measuring.
        source: where these numbers come from.
        license: licence of the weights.
        architecture: the configurations of `transformer` and `vae`, for planning without network.
        blocks_from: keys of the transformer's configuration whose sum is the number of blocks, and
        width_from: keys whose product is the width; by them a folder is described that is no
            published one. A key that is missing counts as 0 blocks.

    Raises:
        InvalidArgumentError: a value has a wrong type, or is out of range.
    """

    name: str
    repo: str
    pipeline: str
    load: Callable[..., Backbone]
    plan: Callable[..., LoadingPlan] | None = None
    blocks: int
    width: int
    pixels_per_token: int
    block: int
    timestep: int
    long_side: int
    ensemble: int = 1
    massive_channels: tuple[int, ...] | None = None
    prompt: str = ""
    calibrated: bool = False
    source: str
    license: str
    architecture: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    blocks_from: tuple[str, ...] = ("num_layers", "num_single_layers")
    width_from: tuple[str, ...] = ("num_attention_heads", "attention_head_dim")

    def __post_init__(self) -> None:
        _check_spec(self, ("name", "repo", "pipeline", "source", "license"))
        for name in ("blocks", "width", "pixels_per_token", "long_side", "ensemble"):
            check_integer(name, getattr(self, name), minimum=1)
        check_integer("block", self.block, minimum=0, maximum=self.blocks - 1)
        for channel in () if self.massive_channels is None else self.massive_channels:
            check_integer("massive_channels", channel, minimum=0, maximum=self.width - 1)
        if not isinstance(self.prompt, str):
            raise InvalidArgumentError(f"prompt must be a text, got {self.prompt!r}")
        check_timestep(self.timestep)

    @classmethod
    def uncalibrated(cls, *, blocks: int, **known: Any) -> BackboneSpec:
        """Describe a backbone whose block and timestep nobody has published or measured.

        The numbers follow one stated rule for all, so that they look like what they are.
        """
        return cls(blocks=blocks, block=blocks // 2, timestep=250, source=NEUTRAL_RULE, **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorSpec:
    """All that is known of a dense descriptor that is no DiT, before a weight is loaded.

    Args:
        name: what the user types.
        load: makes the descriptor; called with the options that the user gave: `source`, `dtype`
            and `device` by convention, and those that the descriptor has besides.
        width: channels D of the descriptors, with the preset's options.
        pixels_per_token: side of the square of pixels that one token covers.
        source: where the preset's numbers come from.
        license: licence of the weights.
        repo: hub id of the weights; empty where there are several, or none.
    """

    name: str
    load: Callable[..., DenseDescriptor]
    width: int
    pixels_per_token: int
    source: str
    license: str
    repo: str = ""

    def __post_init__(self) -> None:
        _check_spec(self, ("name", "source", "license"))
        for name in ("width", "pixels_per_token"):
            check_integer(name, getattr(self, name), minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """All that is known of a data set of image pairs before a file of it is read.

    Args:
        name: what the user types.
        load: reads it; called with `root`, the folder that holds it, and the options that the
            user gave (`split` by convention). Gives a sequence of pairs.
        layout: the files and folders that are expected below `root`, in words.
        source: how to get it.
        license: licence of the images and annotations.
        folder: the name under which its folder is published.
        inside: files and folders in that folder, or patterns of them, by which a copy is
            recognised; empty where it must be named.
        splits: the names that `split` takes, the usual one first.
        split_path: what holds a split, relative to the folder, with `{split}` for its name; empty
            where all are always there.
    """

    name: str
    load: Callable[..., Sequence[Any]]
    layout: str
    source: str
    license: str
    folder: str = ""
    inside: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test",)
    split_path: str = ""

    def __post_init__(self) -> None:
        _check_spec(self, ("name", "layout", "source", "license"))


def _check_spec(spec: BackboneSpec | DescriptorSpec | DatasetSpec, texts: Sequence[str]) -> None:
    for name in texts:
        value = getattr(spec, name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidArgumentError(
                f"{name} of a {type(spec).__name__} must be a text that is not empty, got {value!r}"
            )
    if not callable(spec.load):
        raise InvalidArgumentError(f"load of {spec.name!r} must be callable, got {spec.load!r}")
