"""FLUX.1: double-stream blocks, then single-stream blocks whose numbering goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from kornia_ditf.backbones import configs
from kornia_ditf.backbones.declared import Inputs
from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.inputs import full_batch, grid_positions
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.tap import BlockStream, LinearModulation, Modulation

_DOUBLE, _SINGLE = LinearModulation("norm1.linear"), LinearModulation("norm.linear")


def flux_streams(
    double: Modulation = _DOUBLE,
    single: Modulation = _SINGLE,
    *,
    norms: tuple[str, str] = ("norm1.norm", "norm.norm"),
    tokens: Literal["first", "last"] = "last",
) -> tuple[BlockStream, BlockStream]:
    """Declare FLUX's two lists of blocks.

    Args:
        double: modulation of the double-stream blocks, whose text has a stream of its own.
        single: modulation of the single-stream blocks.
        norms: the first norm of a block of either list.
        tokens: where the image's tokens stand in the single stream.
    """
    return (
        BlockStream(
            blocks="transformer_blocks", norm=norms[0], attention="attn", modulation=double
        ),
        BlockStream(
            blocks="single_transformer_blocks",
            norm=norms[1],
            attention="attn",
            modulation=single,
            tokens=tokens,
        ),
    )


class GuidedBackbone(DiffusersBackbone):
    """A family with a distilled guidance scale, which some of its models have no embedding for.

    Args:
        transformer: of the family's class.
        vae: its VAE, or the encoder alone.
        guidance: the scale; None is the family's own. Models without an embedding ignore it.
        options: see `DiffusersBackbone`.
    """

    default_guidance: ClassVar[float]
    guidance_unit: ClassVar[float] = 1.0
    """What the transformer is given for a scale of 1."""

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        guidance: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(transformer, vae, **options)
        self.guidance = self.default_guidance if guidance is None else guidance

    def settings(self) -> str:
        return f"{super().settings()} guidance={self.guidance}"

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        guided = self.config.guidance_embeds
        scale = full_batch(latent, self.guidance_unit * self.guidance) if guided else None
        return {**super().further_inputs(latent, inputs), "guidance": scale}


class FluxLikeBackbone(DiffusersBackbone):
    """A family with FLUX's blocks, whose pipeline packs 2 x 2 cells of the latent into a token."""

    streams = flux_streams()
    packed = 2  # the configuration's patch_size is 1
    prompt_outputs: ClassVar[tuple[str | None, ...]] = ("prompt_embeds",)

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        cells = grid_positions(*self.token_grid(latent), device=latent.device)
        words, cells = self.positions(inputs["encoder_hidden_states"].shape[1], cells)
        return {"img_ids": cells, "txt_ids": words}

    def positions(self, words: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions (N, 3) of a number of words, and those of the image's tokens."""
        return cells.new_zeros(words, 3), cells


class FluxBackbone(GuidedBackbone, FluxLikeBackbone):
    """FLUX.1-dev and FLUX.1-schnell, which ignores the guidance.

    In a double-stream block the authors' code takes the feed-forward's input; here every block
    gives the input of its first AdaLN. In single-stream blocks, the ones they use, both agree.
    """

    transformer_class = "FluxTransformer2DModel"
    pipeline_class = "FluxPipeline"
    prompt_outputs = ("prompt_embeds", "pooled_prompt_embeds")
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "pooled_projections": "pooled_prompt_embeds",
    }
    default_guidance = 3.5


FLUX_DEV = FluxBackbone.spec(
    name="flux.1-dev",
    repo="black-forest-labs/FLUX.1-dev",
    architecture=configs.flux(guidance=True),
    blocks=57,
    width=3072,
    block=28,
    timestep=260,
    long_side=640,
    ensemble=8,
    massive_channels=(154, 1446),
    protocol="ditf-spair",
    calibrated=True,
    source="the DiTF authors' released evaluation on SPair-71k (arXiv 2505.18584), image size of "
    "its README; they caption each image: 'a photo of a CATEGORY' costs about .3 points of PCK@0.1",
    license="FLUX.1 [dev] Non-Commercial License",
)

FLUX_DEV_960 = replace(
    FLUX_DEV,
    name="flux.1-dev-960",
    long_side=960,
    protocol="ditf-spair-960",
    source="flux.1-dev's numbers at the image size of the paper's appendix, 960 (second-hand: "
    "summaries of arXiv 2505.18584)",
)

FLUX_DEV_DAVIS = replace(
    FLUX_DEV,
    name="flux.1-dev-davis",
    block=24,
    timestep=90,
    long_side=1712,
    ensemble=1,
    prompt="a photo of a image",
    protocol="davis-ditf",
    source="the DiTF authors' released evaluation on DAVIS-2017 (arXiv 2505.18584): ensemble of "
    "its script (README: 8), 854 x 480 frames at its README's shortest side 960 (script: 480)",
)

FLUX_SCHNELL = FluxBackbone.spec(
    name="flux.1-schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    architecture=configs.flux(guidance=False),
    blocks=57,
    width=3072,
    license="Apache-2.0",
)

SPECS: tuple[BackboneSpec, ...] = (FLUX_DEV, FLUX_DEV_960, FLUX_DEV_DAVIS, FLUX_SCHNELL)
