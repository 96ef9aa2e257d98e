"""Lumina-Next: RMS norm, a scale without shift, cross-attention, and time that runs backwards."""

from math import sqrt

from kornia_ditf import DiffusersBackbone
from kornia_ditf.tap import BlockStream, LinearModulation


class LuminaNextBackbone(DiffusersBackbone):
    """Lumina-Next in the layout of its diffusers repository."""

    transformer_class = "LuminaNextDiT2DModel"
    pipeline_class = "LuminaPipeline"
    width_from = ("hidden_size",)
    streams = (
        BlockStream(
            blocks="layers",
            norm="norm1.norm",
            attention="attn1",
            # Chunks: scale and gate of the attention, scale and gate of the feed-forward.
            modulation=LinearModulation("norm1.linear", shift=None, scale=0, gates=(1, 3)),
        ),
    )
    head = ("norm_out",)
    prompt_outputs = ("prompt_embeds", "prompt_attention_mask")
    prompt_inputs = {
        "encoder_hidden_states": "prompt_embeds",
        "encoder_mask": "prompt_attention_mask",
    }
    prompt_length = 256
    time = "1 - t / 1000"  # from noise to image: 0 is noise, 1 is clean

    def further_inputs(self, latent, inputs):
        from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

        height, width = latent.shape[2:]
        positions = get_2d_rotary_pos_embed_lumina(
            self.width // self.config.num_attention_heads,
            *self.token_grid(latent),
            # As in the pipeline: positions are stretched to the resolution of the training.
            linear_factor=sqrt(height * width) / self.config.sample_size,
        )
        rotations = positions.to(latent.device)
        return {"image_rotary_emb": rotations, "cross_attention_kwargs": {}}


LUMINA_NEXT = LuminaNextBackbone.spec(
    name="lumina-next-sft",
    repo="Alpha-VLLM/Lumina-Next-SFT-diffusers",
    blocks=24,
    width=2304,
    license="Apache-2.0",
)
