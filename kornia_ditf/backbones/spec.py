"""What is known of a backbone before a weight is loaded: a value that plugins register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.dense import InMemory
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.plan import LoadingPlan
from kornia_ditf.utils.checks import check_integer, check_spec, check_timestep

NEUTRAL_RULE = (
    "uncalibrated; neutral rule: the middle block, timestep 250, the training resolution, one "
    "noise draw, massive channels found in each image"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """Description of a backbone, available before any weights are loaded.

    Args:
        name: what the user types.
        repo: hub id of a repository in the diffusers layout, or a folder's path.
        pipeline: the `_class_name` in its model_index.json, by which a folder is recognised.
        load: makes the backbone; called with `source`, `block`, `dtype`, `device` and more.
        plan: works out what that would download and hold; None where nobody knows.
        in_memory: how it is made of a transformer in memory; None where it is not.
        blocks: number of blocks, all lists together.
        width: channels of the stream.
        pixels_per_token: side of the square of pixels that one token covers.
        block: which block's input to take, counted from 0.
        timestep: the paper's timestep in [0, 1000].
        long_side: length of the image's longest side in pixels.
        ensemble: number of noise draws.
        treatment: as in `DiTFConfig`.
        massive_channels: those to discard; None where they are found in each image.
        prompt: the text prompt when the user gives none.
        protocol: name of the evaluation protocol that these numbers were published for; a study
            says where a preset meets another.
        calibrated: whether block, timestep and massive channels were chosen by measuring.
        source: where these numbers come from.
        license: licence of the weights.
        architecture: the configurations of `transformer` and `vae`, for planning without network.
        base: hub id or folder of what a single file of weights lacks; empty where that is `repo`.
        blocks_from: keys of the transformer's configuration whose sum is the number of blocks, and
        width_from: keys whose product is the width; by them a folder is described that is no
            published one. A key that is missing counts as 0 blocks.
        needs: a version that must be installed, such as `diffusers>=0.42`; empty where any will do
            that the plugin itself asks for.

    Raises:
        InvalidArgumentError: a value has a wrong type, or is out of range.
    """

    name: str
    repo: str
    pipeline: str
    load: Callable[..., Backbone]
    plan: Callable[..., LoadingPlan] | None = None
    in_memory: InMemory | None = None
    blocks: int
    width: int
    pixels_per_token: int
    block: int
    timestep: float
    long_side: int
    ensemble: int = 1
    treatment: str = "adaln+discard"
    massive_channels: tuple[int, ...] | None = None
    prompt: str = ""
    protocol: str = ""
    calibrated: bool = False
    source: str
    license: str
    architecture: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    base: str = ""
    blocks_from: tuple[str, ...] = ("num_layers", "num_single_layers")
    width_from: tuple[str, ...] = ("num_attention_heads", "attention_head_dim")
    needs: str = ""

    def __post_init__(self) -> None:
        check_spec(self, ("name", "repo", "pipeline", "source", "license"))
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
        numbers = {"block": blocks // 2, "timestep": 250, "source": NEUTRAL_RULE}
        return cls(blocks=blocks, **{**numbers, **known})
