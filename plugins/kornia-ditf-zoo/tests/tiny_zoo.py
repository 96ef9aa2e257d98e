"""Tiny random checkpoints of every family, in the real layout, with the real kinds of encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kornia_ditf.loading.weights import without_deprecations, without_progress_bars
from kornia_ditf.testing import tiny

TEXT = 24  # width of every text encoder's embedding
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
ROTARY = (4, 6, 6)
SAVERS: dict[str, Callable[[Path], None]] = {}


def saver(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Note the function that saves the tiny model of a backbone, by the backbone's name."""

    def note(save: Callable[[Path], None]) -> Callable[[Path], None]:
        SAVERS[name] = save
        return save

    return note


def save_tiny(name: str, folder: Path) -> Path:
    """Save a tiny random model with the architecture of a backbone."""
    with tiny.seeded(), without_deprecations(), without_progress_bars():
        SAVERS[name](folder)
    return folder


def transformer(folder: Path, class_name: str, **config: Any) -> None:
    """Save a transformer of a class."""
    import diffusers

    tiny.save_transformer(getattr(diffusers, class_name)(**config), folder)


@torch.no_grad()
def vae(folder: Path, class_name: str, **config: Any) -> None:
    """Save a VAE of a class, whose convolutions look at their middle most, as trained ones do."""
    import diffusers

    model = getattr(diffusers, class_name)(**config)
    for buffer in model.buffers():  # statistics of channels
        if buffer.is_floating_point():
            buffer.copy_(0.5 + torch.rand_like(buffer))
    for parameter in model.parameters():
        if parameter.ndim > 3 and parameter.shape[-1] == 3:
            middle = torch.randn_like(parameter[..., 1, 1]) / parameter.shape[1] ** 0.5
            parameter.mul_(0.2)[..., 1, 1] = middle
    model.save_pretrained(folder / "vae")


def encoder(
    folder: Path, class_name: str, *, suffix: str = "", width: int = TEXT, **config: Any
) -> None:
    """Save a text encoder of one of transformers' classes, without tokenizer."""
    import transformers

    kind: Any = getattr(transformers, class_name)
    sizes: dict[str, Any] = {
        "vocab_size": 29,
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "max_position_embeddings": 2048,
        **config,
    }
    kind(kind.config_class(**sizes)).save_pretrained(folder / f"text_encoder{suffix}")


def t5(folder: Path, suffix: str = "", class_name: str = "T5EncoderModel") -> None:
    """Save a T5 or UMT5 encoder with its tokenizer."""
    import transformers

    kind: Any = getattr(transformers, class_name)
    size = tiny.save_letters(folder, suffix)
    config = kind.config_class(
        vocab_size=size, d_model=TEXT, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    kind(config).save_pretrained(folder / f"text_encoder{suffix}")


# A chat is its messages' text, with markers around, as far as letters can tell.
CHAT = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['role'] ~ m['content'] }}"
    "{% else %}{{ m['role'] ~ m['content'][0]['text'] }}{% endif %}{% endfor %}"
)


@saver("auraflow-0.3")
def _auraflow(folder: Path) -> None:
    transformer(
        folder,
        "AuraFlowTransformer2DModel",
        **HEADS,
        sample_size=8,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    tiny.save_vae(folder, channels=4, scaling_factor=0.2)
    tiny.save_scheduler(folder)
    t5(folder, class_name="UMT5EncoderModel")
    tiny.save_index(folder, "AuraFlowPipeline")


@saver("hunyuandit-1.2")
def _hunyuandit(folder: Path) -> None:
    transformer(
        folder,
        "HunyuanDiT2DModel",
        **HEADS,
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=32,
        num_layers=4,
        cross_attention_dim=TEXT,
        cross_attention_dim_t5=TEXT,
        pooled_projection_dim=16,
    )
    tiny.save_vae(folder, channels=4, scaling_factor=0.2)
    tiny.save_scheduler(
        folder, "DDPMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.03
    )
    tiny.save_letters(folder)
    encoder(folder, "BertModel", type_vocab_size=2)
    t5(folder, "_2")
    tiny.save_index(folder, "HunyuanDiTPipeline", safety_checker=[None, None])


@saver("lumina-image-2.0")
def _lumina2(folder: Path) -> None:
    transformer(
        folder,
        "Lumina2Transformer2DModel",
        sample_size=8,
        hidden_size=32,
        num_layers=3,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=ROTARY,
        axes_lens=(300, 16, 16),
        cap_feat_dim=TEXT,
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "Gemma2Model")
    tiny.save_index(folder, "Lumina2Pipeline")


@saver("cogview3-plus")
def _cogview3(folder: Path) -> None:
    transformer(
        folder,
        "CogView3PlusTransformer2DModel",
        **HEADS,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    tiny.save_vae(folder, channels=16, scaling_factor=0.4)
    tiny.save_scheduler(folder, "CogVideoXDDIMScheduler", snr_shift_scale=4.0)
    t5(folder)
    tiny.save_index(folder, "CogView3PlusPipeline")


@saver("cogview4")
def _cogview4(folder: Path) -> None:
    transformer(
        folder,
        "CogView4Transformer2DModel",
        **HEADS,
        num_layers=3,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=4,
    )
    tiny.save_vae(folder, channels=16, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "GlmModel")
    tiny.save_index(folder, "CogView4Pipeline")


def _dc(folder: Path) -> None:
    vae(
        folder,
        "AutoencoderDC",
        latent_channels=8,
        encoder_block_out_channels=(8,) * 6,
        decoder_block_out_channels=(8,) * 6,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.4,
    )


def _sana(folder: Path) -> None:
    transformer(
        folder,
        "SanaTransformer2DModel",
        **HEADS,
        in_channels=8,
        out_channels=8,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=TEXT,
    )
    _dc(folder)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder)
    encoder(folder, "Gemma2Model")
    tiny.save_index(folder, "SanaPipeline")


SAVERS["sana-1600m-1024"] = _sana
VIDEO: dict[str, Any] = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_dim": 4}
CHANNELS = {"latents_mean": [0.1, -0.2, 0.3, -0.4], "latents_std": [1.1, 0.9, 1.2, 0.8]}


def qwen_vl(folder: Path) -> None:
    """Save a Qwen2.5-VL with its tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tiny.save_letters(folder),
            "hidden_size": TEXT,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "rope_parameters": {"type": "default", "mrope_section": [2, 2, 2]},
        },
        vision_config={"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": TEXT},
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")


@saver("qwen-image")
def _qwenimage(folder: Path) -> None:
    transformer(
        folder,
        "QwenImageTransformer2DModel",
        **HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        joint_attention_dim=TEXT,
        axes_dims_rope=ROTARY,
    )
    vae(folder, "AutoencoderKLQwenImage", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder)
    qwen_vl(folder)
    tiny.save_index(folder, "QwenImagePipeline")


@saver("z-image-turbo")
def _zimage(folder: Path) -> None:
    transformer(
        folder,
        "ZImageTransformer2DModel",
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT,
        axes_dims=list(ROTARY),
        axes_lens=[1024, 16, 16],
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    tiny.save_letters(folder, chat_template=CHAT)
    encoder(folder, "Qwen3Model")
    tiny.save_index(folder, "ZImagePipeline")


@saver("chroma1-hd")
def _chroma(folder: Path) -> None:
    transformer(
        folder,
        "ChromaTransformer2DModel",
        **HEADS,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=TEXT,
        axes_dims_rope=ROTARY,
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    t5(folder)
    tiny.save_index(folder, "ChromaPipeline")


def _flux2(folder: Path, *, guidance: bool) -> None:
    transformer(
        folder,
        "Flux2Transformer2DModel",
        **HEADS,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=3 * TEXT,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    vae(
        folder,
        "AutoencoderKLFlux2",
        block_out_channels=(8,) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    tiny.save_scheduler(folder)
    tiny.save_letters(folder, chat_template=CHAT)


@saver("flux.2-dev")
def _flux2_dev(folder: Path) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    _flux2(folder, guidance=True)
    text = {
        "model_type": "mistral",
        "vocab_size": 29,
        "hidden_size": TEXT,
        "intermediate_size": 8,
        "num_hidden_layers": 31,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = Mistral3Config(text_config=text, vision_config=vision, image_token_index=2)
    Mistral3ForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    tiny.save_index(folder, "Flux2Pipeline")


@saver("flux.2-klein-4b")
def _flux2_klein(folder: Path) -> None:
    _flux2(folder, guidance=False)
    encoder(folder, "Qwen3ForCausalLM", num_hidden_layers=28, intermediate_size=8)
    tiny.save_index(folder, "Flux2KleinPipeline", is_distilled=True)


def _fluxlike(folder: Path, class_name: str, **config: Any) -> None:
    sizes = {"num_layers": 2, "num_single_layers": 2, "axes_dims_rope": list(ROTARY)}
    transformer(folder, class_name, **HEADS, **sizes, joint_attention_dim=TEXT, **config)
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)


@saver("ovis-image")
def _ovis(folder: Path) -> None:
    _fluxlike(folder, "OvisImageTransformer2DModel")
    tiny.save_letters(folder, chat_template=CHAT)
    encoder(folder, "Qwen3Model")
    tiny.save_index(folder, "OvisImagePipeline")


@saver("bria-3.2")
def _bria(folder: Path) -> None:
    _fluxlike(folder, "BriaTransformer2DModel")
    t5(folder)
    tiny.save_index(folder, "BriaPipeline")


@saver("longcat-image")
def _longcat(folder: Path) -> None:
    _fluxlike(folder, "LongCatImageTransformer2DModel")
    qwen_vl(folder)
    (folder / "tokenizer").rename(folder / "text_processor")
    tiny.save_letters(folder)
    tiny.save_index(folder, "LongCatImagePipeline")


@saver("hidream-i1-full")
def _hidream(folder: Path) -> None:
    transformer(
        folder,
        "HiDreamImageTransformer2DModel",
        **HEADS,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        caption_channels=[TEXT, TEXT],
        text_emb_dim=32,
        num_routed_experts=2,
        num_activated_experts=2,
        axes_dims_rope=ROTARY,
        max_resolution=(16, 16),
        llama_layers=(0, 1, 0, 1),
    )
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    tiny.save_scheduler(folder)
    for suffix in ("", "_2"):
        tiny.save_letters(folder, suffix)
        encoder(folder, "CLIPTextModelWithProjection", suffix=suffix, projection_dim=16)
    t5(folder, "_3")
    tiny.save_letters(folder, "_4")
    encoder(folder, "LlamaForCausalLM", suffix="_4")
    tiny.save_index(folder, "HiDreamImagePipeline")


def _prx(folder: Path, channels: int) -> None:
    import diffusers.pipelines.prx  # noqa: F401 - gives transformers the encoder by its name
    import transformers
    from transformers import T5GemmaConfig, T5GemmaModuleConfig

    transformer(
        folder,
        "PRXTransformer2DModel",
        in_channels=channels,
        patch_size=2 if channels == 16 else 1,
        context_in_dim=TEXT,
        hidden_size=32,
        num_heads=2,
        depth=3,
        axes_dim=[8, 8],
    )
    tiny.save_scheduler(folder)
    size = tiny.save_letters(folder, model_max_length=256)
    module = T5GemmaModuleConfig(
        vocab_size=size,
        hidden_size=TEXT,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    module.dropout_rate = 0.0  # which the whole model's configuration sets
    kind: Any = transformers.T5GemmaEncoder
    kind(module).save_pretrained(folder / "text_encoder")
    config = T5GemmaConfig(encoder=module, decoder=module, architectures=["T5GemmaEncoder"])
    config.save_pretrained(folder / "text_encoder")
    tiny.save_index(folder, "PRXPipeline")


@saver("prx-512")
def _prx_kl(folder: Path) -> None:
    tiny.save_vae(folder, channels=16, shift_factor=0.1, scaling_factor=0.4)
    _prx(folder, 16)


@saver("prx-512-dc")
def _prx_dc(folder: Path) -> None:
    _dc(folder)
    _prx(folder, 8)


@saver("wan2.1-1.3b")
def _wan(folder: Path) -> None:
    transformer(
        folder,
        "WanTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT,
        freq_dim=16,
        ffn_dim=64,
        num_layers=3,
        rope_max_seq_len=32,
    )
    vae(folder, "AutoencoderKLWan", **VIDEO, **CHANNELS)
    tiny.save_scheduler(folder, "UniPCMultistepScheduler", use_flow_sigmas=True)
    t5(folder, class_name="UMT5EncoderModel")
    tiny.save_index(folder, "WanPipeline", transformer_2=[None, None])


@saver("ltx-video")
def _ltx(folder: Path) -> None:
    transformer(
        folder,
        "LTXVideoTransformer3DModel",
        **HEADS,
        in_channels=8,
        out_channels=8,
        cross_attention_dim=32,
        num_layers=3,
        caption_channels=TEXT,
    )
    vae(
        folder,
        "AutoencoderKLLTXVideo",
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
    )
    tiny.save_scheduler(folder)
    t5(folder)
    tiny.save_index(folder, "LTXPipeline")


def _cogvideox(folder: Path, *, rotary: bool) -> None:
    transformer(
        folder,
        "CogVideoXTransformer3DModel",
        **HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=TEXT,
        num_layers=3,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        use_rotary_positional_embeddings=rotary,
    )
    vae(
        folder,
        "AutoencoderKLCogVideoX",
        latent_channels=4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_height=64,
        sample_width=96,
    )
    tiny.save_scheduler(
        folder, "CogVideoXDDIMScheduler", snr_shift_scale=3.0, rescale_betas_zero_snr=True
    )
    t5(folder)
    tiny.save_index(folder, "CogVideoXPipeline")


@saver("cogvideox-2b")
def _cogvideox_2b(folder: Path) -> None:
    _cogvideox(folder, rotary=False)


@saver("cogvideox-5b")
def _cogvideox_5b(folder: Path) -> None:
    _cogvideox(folder, rotary=True)
