"""Wan 2.1 and 2.2, and SkyReels V2: video models on one frame; text through cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from torch import Tensor, nn

from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.video import VideoBackbone, as_clip
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.memory import LoadedModel, take_apart
from kornia_ditf.noise import RectifiedFlow
from kornia_ditf.tap import ADALN_SINGLE, TableModulation
from kornia_ditf.utils.checks import check_one_of

_EXPERTS = {"low": "transformer_2", "high": "transformer"}


class _OneEnd(RectifiedFlow):
    """The straight path, of which a transformer was trained on one end."""

    def __init__(self, expert: str, boundary: float) -> None:
        self.expert, self.boundary = expert, boundary

    def check(self, timestep: float) -> None:
        super().check(timestep)
        needed = "high" if timestep >= self.boundary else "low"
        if needed != self.expert:
            raise InvalidArgumentError(
                f"this transformer of the model is for {self.expert} noise, and timestep "
                f"{timestep:g} is on the other side of {self.boundary:g}; load it with "
                f"expert={needed!r}"
            )


class WanBackbone(VideoBackbone):
    """Wan 2.1 and 2.2, text to video.

    Wan 2.2 A14B is two transformers, one for either end of the noise. One of them is loaded.

    Args:
        transformer: a WanTransformer3DModel.
        vae: its AutoencoderKLWan, or the encoder alone.
        expert: of a model with two transformers, the one for `low` noise or for `high` noise.
        boundary: the timestep from which on that for high noise is used; None where there is one.
        time_per_token: whether each token is told its time, as in Wan 2.2 5B.
        options: see `DiffusersBackbone`.

    Raises:
        InvalidArgumentError: there is no such expert.
    """

    transformer_class = "WanTransformer3DModel"
    pipeline_class = "WanPipeline"
    vae_class = "AutoencoderKLWan"
    streams = (replace(ADALN_SINGLE, blocks="blocks", modulation=TableModulation("temb")),)
    time = "t"
    positions_from = "rope_max_seq_len"
    unused_parts = ("transformer_2",)
    prompt_outputs = ("prompt_embeds",)
    prompt_options = {"max_sequence_length": 512}

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        expert: str = "low",
        boundary: float | None = None,
        time_per_token: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        check_one_of("expert", expert, _EXPERTS)
        self.time_per_token = time_per_token
        if boundary is not None:
            self.schedule = _OneEnd(expert, boundary)

    def settings(self) -> str:
        expert = f" expert={end.expert}" if isinstance(end := self.schedule, _OneEnd) else ""
        return f"{super().settings()}{expert}"

    @classmethod
    def from_loaded(cls, loaded: LoadedModel, **options: Any) -> Self:
        second = getattr(loaded.pipeline, "transformer_2", None)
        if second is not None and options.get("expert", "low") == "low":
            loaded = replace(loaded, model=take_apart((second,)).model)
        return super().from_loaded(loaded, **options)

    @classmethod
    def transformer_folder(cls, checkpoint: Checkpoint, options: Mapping[str, Any]) -> str:
        expert = options.get("expert", "low")
        check_one_of("expert", expert, _EXPERTS)
        return _EXPERTS[expert] if checkpoint.has_part("transformer_2") else "transformer"

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        index = checkpoint.json("model_index.json")
        ratio = index.get("boundary_ratio")
        return {
            "boundary": None if ratio is None else 1000 * float(ratio),
            "time_per_token": bool(index.get("expand_timesteps")),
        }

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        if not self.time_per_token:
            return {}
        frames, rows, columns = as_clip(latent).shape[2:]
        tokens = frames * rows * columns // self.patch_size**2
        return {"timestep": inputs["timestep"][:, None].expand(-1, tokens)}


class SkyReelsV2Backbone(WanBackbone):
    """SkyReels V2, text to video, whose blocks are Wan's; not its models for diffusion forcing."""

    transformer_class = "SkyReelsV2Transformer3DModel"
    pipeline_class = "SkyReelsV2Pipeline"
