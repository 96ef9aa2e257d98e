"""The parts of a checkpoint in the diffusers layout, tiny and random, for tests without downloads.

A family's test builds its own transformer class at a small size and saves it beside a VAE, a
scheduler and text encoders from here; `save_index` writes the model_index.json for what is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

SHARD_SIZE = "40KB"
"""Small, so that a tiny transformer comes in several shards, as a large one does."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw random weights from a seed, and leave torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Set what is constant at first: biases, gains, and modulations that are zero.

    Otherwise a test of the modulation would compare nothing with nothing.
    """
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.3)


def saved_once(folder: Path, save: Callable[[Path], object]) -> Path:
    """Save a checkpoint once for all processes of a test run; not to be changed afterwards.

    Args:
        folder: the checkpoint's folder in pytest's folder of the run (`getbasetemp()` of its
            `tmp_path_factory`); each worker of pytest-xdist has one of its own inside of the run's.
        save: saves the checkpoint in a folder.

    Returns:
        the checkpoint's folder, which is the same for all workers.
    """
    from filelock import FileLock  # torch needs it

    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parents[1] / folder.name
    done = folder.with_name(f"{folder.name}.saved")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            folder.mkdir()
            save(folder)
            done.touch()
    return folder


def save_transformer(
    model: Any, folder: Path, *, published: Mapping[str, Any] | None = None
) -> None:
    """Save a transformer in several shards, its constant parameters randomised.

    Args:
        model: a diffusers model.
        folder: the checkpoint's folder.
        published: what the real repository's config.json says besides, or says otherwise.
    """
    randomise(model)
    model.save_pretrained(folder / "transformer", max_shard_size=SHARD_SIZE)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(published or {})}))


def save_vae(folder: Path, *, channels: int, **config: Any) -> None:
    """Save an AutoencoderKL of 8 x 8 pixels per cell.

    Args:
        folder: the checkpoint's folder.
        channels: of the latent; as in the real ones, only 4 have quantising convolutions.
        config: `scaling_factor`, `shift_factor` and whatever differs besides.
    """
    from diffusers import AutoencoderKL

    sizes: dict[str, Any] = {
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": channels,
        "norm_num_groups": 4,
        "sample_size": 64,
        "use_quant_conv": channels == 4,
        "use_post_quant_conv": channels == 4,
    }
    AutoencoderKL(**{**sizes, **config}).save_pretrained(folder / "vae")


def save_scheduler(
    folder: Path, name: str = "FlowMatchEulerDiscreteScheduler", **config: Any
) -> None:
    """Save one of diffusers' schedulers, by the name of its class."""
    import diffusers

    scheduler: Any = getattr(diffusers, name)
    scheduler(**config).save_pretrained(folder / "scheduler")


def save_clip(
    folder: Path, suffix: str = "", *, width: int = 16, projection: int | None = None
) -> None:
    """Save a CLIP text encoder and its tokenizer, which reads words letter by letter.

    Args:
        folder: the checkpoint's folder.
        suffix: of `text_encoder` and `tokenizer`, such as `_2`.
        width: of the encoder's stream.
        projection: width of the projected embedding; None saves an encoder without projection.
    """
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    end = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    pieces = [*_LETTERS, *(letter + "</w>" for letter in _LETTERS)]
    vocabulary = {**end, **{piece: 2 + index for index, piece in enumerate(pieces)}}
    tokenizer_folder = folder / f"tokenizer{suffix}"
    tokenizer_folder.mkdir(parents=True)
    (tokenizer_folder / "vocab.json").write_text(json.dumps(vocabulary))
    (tokenizer_folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(tokenizer_folder / "vocab.json"),
        str(tokenizer_folder / "merges.txt"),
        model_max_length=77,
    )
    tokenizer.save_pretrained(tokenizer_folder)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = CLIPTextModel(config) if projection is None else CLIPTextModelWithProjection(config)
    model.save_pretrained(folder / f"text_encoder{suffix}")


def save_letters(folder: Path, suffix: str = "", **options: Any) -> int:
    """Save a tokenizer that reads text letter by letter, for encoders of the T5 or Llama kind.

    Args:
        folder: the checkpoint's folder.
        suffix: of `tokenizer`, such as `_2`.
        options: of transformers' PreTrainedTokenizerFast, such as `chat_template`.

    Returns:
        the size of its vocabulary; `<pad>` is 0, `</s>` is 1.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *_LETTERS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", **options
    )
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    return len(words)


def save_t5(folder: Path, suffix: str = "", *, width: int = 24) -> None:
    """Save a T5 encoder and a tokenizer that reads text letter by letter."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=save_letters(folder, suffix),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")


def save_index(folder: Path, pipeline: str, **more: Any) -> None:
    """Write the index of a folder, with every part that is found in it.

    It is model_index.json, or modular_model_index.json of a modular pipeline.

    Args:
        folder: the checkpoint's folder, its parts saved.
        pipeline: the pipeline's class in diffusers, by which the family is recognised.
        more: what the index holds besides, such as DiT's `id2label`.
    """
    index: dict[str, Any] = {"_class_name": pipeline}
    modular = pipeline.endswith("ModularPipeline")
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        kind = _describe_part(part)
        place = {"pretrained_model_name_or_path": str(folder), "subfolder": part.name}
        index[part.name] = [*kind, {**place, "type_hint": kind}] if modular else kind
    (folder / f"{'modular_' * modular}model_index.json").write_text(
        json.dumps({**index, **more}, indent=1)
    )


def _describe_part(part: Path) -> list[str]:
    for name in ("config", "scheduler_config", "guider_config", "tokenizer_config"):
        path = part / f"{name}.json"
        if path.is_file():
            break
    values = json.loads(path.read_text())
    if "_class_name" not in values:
        kind = values["tokenizer_class"] if name == "tokenizer_config" else values["architectures"]
        return ["transformers", kind if isinstance(kind, str) else kind[0]]
    # What was published before a class had its name holds another one; see `published`.
    return ["diffusers", values["_class_name"]]
