"""What several families need: grids, noise schedules, tokenizers, and quiet."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone, read_schedule
from kornia_ditf.backbones.video import VideoBackbone
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.quantisation import check_plain
from kornia_ditf.loading.weights import without_progress_bars
from kornia_ditf.noise import VariancePreserving
from kornia_ditf.types import Tap


class QuietBackbone(DiffusersBackbone):
    """A family whose transformer warns of what it does on purpose."""

    ignored_warning: ClassVar[str]
    """How the warning begins."""

    def taps(self, *inputs: Any, **options: Any) -> dict[int, Tap]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", self.ignored_warning)
            return super().taps(*inputs, **options)


class FirstFrameBackbone(VideoBackbone):
    """A family that reads a first frame and its mask besides the latents, all zeros without one."""

    @property
    def latent_channels(self) -> int:
        return (int(self.config.in_channels) - 1) // 2

    def arrange(self, latent: Tensor) -> Tensor:
        return without_reference(super().arrange(latent))


def without_reference(latent: Tensor) -> Tensor:
    """Add the channels of a reference image and of its mask, all zeros."""
    return torch.cat([latent, torch.zeros_like(latent), torch.zeros_like(latent[:, :1])], 1)


class ProcessorBackbone(DiffusersBackbone):
    """A family whose pipeline reads prompts with a multimodal processor; its text half is used."""

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        processor = text_processor(checkpoint)
        return {**super().pipeline_modules(checkpoint, dtype), "processor": processor}


def fit_grid(
    grid: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Fit a grid of tokens into the one of training, centred, its aspect kept.

    Returns:
        the first and the last corner (row, column), in units of the training grid's tokens.
    """
    (rows, columns), (base_rows, base_columns) = grid, base
    if rows / columns > base_rows / base_columns:
        height, width = base_rows, round(base_rows / rows * columns)
    else:
        height, width = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - height) / 2), round((base_columns - width) / 2)
    return (top, left), (top + height, left + width)


def read_own_schedule(checkpoint: Checkpoint) -> VariancePreserving:
    """Read the noise schedule of a checkpoint's scheduler as that scheduler itself works it out.

    Those of CogVideoX shift the signal's share after the betas, which DDPM's do not.
    """
    return read_schedule(checkpoint, _own_schedule)


def _own_schedule(config: dict[str, Any]) -> VariancePreserving:
    import diffusers

    schedulers: Any = diffusers
    scheduler = getattr(schedulers, config["_class_name"]).from_config(config)
    return VariancePreserving(scheduler.alphas_cumprod)


def read_tokenizer(checkpoint: Checkpoint, folder: str) -> Any:
    """Read a tokenizer from a folder of a checkpoint.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from transformers import AutoTokenizer

    options = checkpoint.pretrained_options()
    source = options.pop("pretrained_model_name_or_path")
    try:
        return AutoTokenizer.from_pretrained(source, subfolder=folder, **options)
    except Exception as error:  # transformers raises all kinds
        raise CheckpointError(
            f"{checkpoint.source}/{folder} has no valid tokenizer ({error}); download it again"
        ) from error


def read_text_encoder(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    """Read the text encoder of a checkpoint, for pipelines that do not load it by themselves.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    import transformers

    options = checkpoint.pretrained_options()
    source = options.pop("pretrained_model_name_or_path")
    name = "text_encoder"
    try:
        check_plain(checkpoint, name)
        with without_progress_bars():
            kind = getattr(transformers, checkpoint.index[name][1])
            return kind.from_pretrained(source, subfolder=name, dtype=dtype, **options).eval()
    except Exception as error:  # transformers raises all kinds
        raise CheckpointError(
            f"{checkpoint.source}/{name} has no valid text encoder ({error}); download it again"
        ) from error


def text_processor(checkpoint: Checkpoint, folder: str = "processor") -> Any:
    """Read the text half of a checkpoint's multimodal processor; the other half needs torchvision.

    Raises:
        CheckpointError: its tokenizer is missing or damaged.
    """
    import transformers

    base: Any = transformers.ProcessorMixin  # which pipelines ask for

    class TextProcessor(base):  # type: ignore[misc]
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        def __call__(self, text: list[str], images: None = None, **options: Any) -> Any:
            return self.tokenizer(text, **options)

        def apply_chat_template(self, messages: list[Any], **options: Any) -> Any:
            found = self.tokenizer.apply_chat_template(messages, **options)
            # A processor gives a list of token lists, a tokenizer the tokens of one conversation.
            return [found] if options.get("tokenize") else found

    return TextProcessor(read_tokenizer(checkpoint, folder))
