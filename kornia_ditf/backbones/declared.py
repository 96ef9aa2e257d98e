"""What a family of diffusers transformers declares, and how its blocks are captured by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from inspect import signature
from itertools import chain
from math import prod
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.base import Backbone, Function
from kornia_ditf.backbones.eight_bit import FORMATS, quantise_linears
from kornia_ditf.backbones.inputs import Time, batch_time, pack, pad_prompt
from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.latents import encode_images, execution_place, pixels_per_cell
from kornia_ditf.loading.weights import load_vae_encoder
from kornia_ditf.noise import NoiseSchedule, RectifiedFlow
from kornia_ditf.tap import (
    BlockStream,
    Facet,
    block_list,
    capture_blocks,
    capture_gates,
    count_blocks,
    facet_width,
)
from kornia_ditf.types import Conditioning, Tap
from kornia_ditf.utils.checks import check_one_of, check_tensor
from kornia_ditf.utils.compilation import CompiledModules
from kornia_ditf.utils.isolation import isolated, translated

Posterior = Literal["mode", "sample"]
PromptEncoder = Callable[[Sequence[str]], Conditioning]
Inputs = Mapping[str, Any]
"""Keyword arguments of a transformer's forward."""
MASKED_TEXT: Mapping[str, str] = {
    "encoder_hidden_states": "prompt_embeds",
    "encoder_attention_mask": "prompt_attention_mask",
}
"""The `prompt_inputs` of families that read padded text with its mask."""
PROMPT_OPTIONS = {"do_classifier_free_guidance": False, "prompt_2": None, "prompt_3": None}
"""What every pipeline's `encode_prompt` is given of these, where it takes them."""


class DeclaredBackbone(Backbone):
    """A transformer and VAE in the manner of diffusers; a family declares, and runs its forward.

    Args:
        transformer: a diffusers transformer, whole or with its later blocks left out.
        vae: a diffusers VAE, whole or its encoder alone.
        prompt_encoder: from prompts to conditioning; None where only `Conditioning` is given.
        schedule: the noise schedule; None takes the family's own.
        posterior: take the `mode` of the VAE's posterior, or a seeded `sample`.
        seed: of the posterior sample.

    Raises:
        InvalidArgumentError: the posterior has another name.
    """

    transformer_class: ClassVar[str]
    """Name of the transformer's class in diffusers, or the dotted path of another."""
    needs: ClassVar[str] = ""
    """The version of diffusers that has its classes, such as `diffusers>=0.42`."""
    transformer_module: ClassVar[type[nn.Module] | None] = None
    """A class with the same arithmetic and names, to use in its place; None takes diffusers'."""
    blocks_from: ClassVar[tuple[str, ...]] = ("num_layers", "num_single_layers")
    """Keys of the transformer's configuration whose sum is the number of blocks."""
    width_from: ClassVar[tuple[str, ...]] = ("num_attention_heads", "attention_head_dim")
    """Keys of the transformer's configuration whose product is the width."""
    positions_from: ClassVar[str | None] = None
    """Key that says how many tokens a side have positions, or lists it behind the text's."""
    streams: ClassVar[tuple[BlockStream, ...]]
    """Where the blocks keep norm, modulation and attention, list by list as they run."""
    head: ClassVar[tuple[str, ...]] = ("norm_out", "proj_out")
    """Modules after the last block, never reached and so never loaded."""
    packed: ClassVar[int | None] = None
    """Side of the square of latent cells that the pipeline packs into a token, 1 where it only
    flattens the latent; None where the transformer makes its tokens itself."""
    time: ClassVar[Time] = "t / 1000"
    """What the transformer is given for the paper's timestep t."""
    schedule: NoiseSchedule = RectifiedFlow()
    """How the family mixes latents with noise."""
    vae_class: ClassVar[str] = "AutoencoderKL"
    """Name of the VAE's class in diffusers, or the dotted path of another."""
    patch_first: ClassVar[bool] = False
    """Whether the packed channels of a VAE that packs them run cell by cell."""
    pipeline_class: ClassVar[str | None] = None
    """Name of the diffusers pipeline that encodes prompts; None where there are none."""
    unused_parts: ClassVar[tuple[str, ...]] = ()
    """Parts of the pipeline, besides transformer and VAE, that prompts do not need."""
    prompt_outputs: ClassVar[tuple[str | None, ...]] = ()
    """Names for what the pipeline's `encode_prompt` returns, in its order; None where unused."""
    prompt_options: ClassVar[Mapping[str, Any]] = {}
    """Keyword arguments of the pipeline's `encode_prompt`, besides those of `PROMPT_OPTIONS`."""
    prompt_length: ClassVar[int | None] = None
    """Tokens to pad every prompt to, where the pipeline pads none itself."""
    prompt_inputs: ClassVar[Mapping[str, str]] = {"encoder_hidden_states": "prompt_embeds"}
    """Arguments of the transformer that are tensors of the conditioning, and their names there."""

    def __init__(
        self,
        transformer: nn.Module,
        vae: nn.Module | None = None,
        *,
        prompt_encoder: PromptEncoder | None = None,
        schedule: NoiseSchedule | None = None,
        posterior: Posterior = "mode",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_one_of("posterior", posterior, get_args(Posterior))
        self.transformer, self.vae = transformer, vae
        self.quantized: str | None = None
        self._compiled = CompiledModules([])
        self.prompt_encoder, self.posterior, self.seed = prompt_encoder, posterior, seed
        if schedule is not None:
            self.schedule = schedule

    @property
    def config(self) -> Any:
        """The transformer's own configuration."""
        return self.transformer.config

    @property
    def blocks(self) -> int:
        return count_blocks(self.transformer, self.streams)

    @property
    def width(self) -> int:
        return prod(int(self.config[key]) for key in self.width_from)

    @property
    def patch_size(self) -> int:
        """Side of the square of latent cells that one token covers."""
        patch = self.packed or self.config.patch_size
        return int(patch if isinstance(patch, int) else patch[-1])  # those of videos: of an axis

    @property
    def pixels_per_token(self) -> int:
        return self.patch_size * self.pixels_per_cell

    @property
    def pixels_per_cell(self) -> int:
        """Side of the square of pixels that one cell of the latent covers."""
        return 1 if self.vae is None else pixels_per_cell(self.vae)

    @property
    def max_cells(self) -> int | None:
        """Longest side of a latent that the model has positions for; None where any will do."""
        if self.positions_from is None:
            return None
        tokens = self.config[self.positions_from]
        return self.patch_size * int(tokens if isinstance(tokens, int) else min(tokens[1:]))

    def settings(self) -> str:
        quantized = self.quantized or getattr(self.config, "quantization_config", None)
        dtype = execution_place(self.transformer)[1]
        compiled = " compiled" if self._compiled.modules else ""
        return (
            f"{dtype} posterior={self.posterior} seed={self.seed} quantized={quantized}{compiled}"
        )

    def encode(self, image: Tensor) -> Tensor:
        if self.vae is None:
            raise InvalidArgumentError("this backbone has no VAE; give (transformer, vae)")
        sample = self.posterior == "sample"
        with _named(self.vae):
            encode = partial(encode_images, self.vae, image, sample=sample, seed=self.seed)
            return self._compiled.run(partial(encode, patch_first=self.patch_first))

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        if self.prompt_encoder is None:
            raise InvalidArgumentError(
                f"this {type(self).__name__} has no text encoders; give it a pipeline, or "
                "prompt_encoder=..., from prompts to a Conditioning"
            )
        return self.prompt_encoder(prompts)

    def taps(
        self,
        latent: Tensor,
        timestep: float,
        conditioning: Conditioning,
        *,
        blocks: Sequence[int],
        facet: Facet = "input",
    ) -> dict[int, Tap]:
        with self._placed_inputs(latent, timestep, conditioning) as (inputs, grid):
            capture = partial(capture_blocks, self.transformer, self.streams, blocks, inputs)
            return self._compiled.run(partial(capture, grid=grid, facet=facet))

    def facet_width(self, block: int, facet: Facet) -> int:
        if facet == "input":
            return self.width
        return facet_width(self.transformer, self.streams, block, facet)

    def gates(self, timestep: float, conditioning: Conditioning, *, block: int) -> Tensor:
        side = 4 * self.patch_size  # any latent will do
        latent = torch.zeros(1, self.latent_channels, side, side, device="cpu")
        with self._placed_inputs(latent, timestep, conditioning) as (inputs, grid):
            return capture_gates(self.transformer, self.streams, block, inputs, grid=grid)

    @contextmanager
    def _placed_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Iterator[tuple[Mapping[str, Any], tuple[int, int]]]:
        """Place the inputs of a forward, which runs meanwhile alone, and name their grid."""
        self.schedule.check(timestep)
        grid = self.token_grid(latent)
        device, dtype = execution_place(self.transformer)
        conditioning = conditioning.expand(len(latent)).to(device, dtype)
        latent = latent.to(device, dtype)
        with isolated(self.transformer), _named(self.transformer):
            yield self.transformer_inputs(latent, timestep, conditioning), grid

    def loaded_blocks(self) -> list[nn.Module]:
        """Return the blocks that were loaded, all lists together."""
        lists = (block_list(self.transformer, stream) for stream in self.streams)
        return [block for block in chain.from_iterable(lists) if not isinstance(block, nn.Identity)]

    def quantise(self, kind: str) -> None:
        """Keep the weights of the blocks' linear layers in 8 bits; they compute as before.

        Args:
            kind: `int8` or `fp8`.

        Raises:
            InvalidArgumentError: there is no such kind.
        """
        check_one_of("quantize", kind, FORMATS)
        quantise_linears(self.loaded_blocks(), kind)
        self.quantized = kind

    def compiled(self, function: Function) -> Function:
        return self._compiled.function(function)

    def compile_parts(self, backend: str = "inductor") -> None:
        """Compile the blocks, the VAE's encoder and the treatment, each by itself, on first use.

        A block that is captured runs as it is, for its hooks. What cannot be compiled runs as it
        is as well, with a warning.

        Args:
            backend: of `torch.compile`; the default one keeps on disk what it compiled.

        Raises:
            InvalidArgumentError: there is no such backend.
        """
        check_one_of("compile", backend, torch.compiler.list_backends(exclude_tags=()))
        modules = self.loaded_blocks()
        if self.vae is not None:
            modules.append(self.vae.get_submodule("encoder"))
        self._compiled = CompiledModules(modules, backend)

    def token_grid(self, latent: Tensor) -> tuple[int, int]:
        """Return the rows and columns of a latent's tokens.

        Raises:
            InvalidArgumentError: the latent has another shape than the model takes.
        """
        patch, channels = self.patch_size, self.latent_channels
        check_tensor(latent, "latent", f"(B, {channels}, h, w)", filled=True)
        height, width = latent.shape[-2:]
        if height % patch or width % patch:
            raise InvalidArgumentError(
                f"latent sides must be multiples of {patch}, got {height} x {width}"
            )
        if self.max_cells is not None and max(height, width) > self.max_cells:
            raise InvalidArgumentError(
                f"this model has positions for latents of up to {self.max_cells} x "
                f"{self.max_cells} cells, got {height} x {width}; use a smaller long_side"
            )
        return height // patch, width // patch

    @property
    def latent_channels(self) -> int:
        """Channels of the latent, before they are packed."""
        return int(self.config.in_channels) // (self.packed or 1) ** 2

    def arrange(self, latent: Tensor) -> Tensor:
        """Arrange a latent as the transformer takes it, packed where the family declares so."""
        return latent if self.packed is None else pack(latent, self.packed)

    def transformer_inputs(
        self, latent: Tensor, timestep: float, conditioning: Conditioning
    ) -> Inputs:
        """Return the arguments of the transformer's forward, as the family's pipeline does.

        They are the latent, the time and the prompt, as `packed`, `time` and `prompt_inputs`
        declare, and `further_inputs`.

        Args:
            latent: noisy latents (B, C, h, w) in the transformer's dtype, on its device.
            timestep: the paper's timestep in [0, 1000].
            conditioning: B rows, on the transformer's device.
        """
        inputs = {argument: conditioning[name] for argument, name in self.prompt_inputs.items()}
        # Some transformers index with their masks, and all take booleans.
        masks = {n: v.bool() for n, v in inputs.items() if self.prompt_inputs[n].endswith("_mask")}
        declared = {
            "hidden_states": self.arrange(latent),
            "timestep": batch_time(latent, timestep, self.time),
            **inputs,
            **masks,
        }
        return {**declared, **self.further_inputs(latent, declared)}

    def further_inputs(self, latent: Tensor, inputs: Inputs) -> Inputs:
        """Return what the family's forward takes besides, or in place of, what is declared.

        Args:
            latent: as for `transformer_inputs`.
            inputs: the declared arguments: the arranged latent, the time and the prompt.
        """
        return {}

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> nn.Module | None:
        """Load the encoder of the checkpoint's VAE, in float32."""
        return load_vae_encoder(checkpoint, cls.vae_class)

    @classmethod
    def transformer_folder(cls, checkpoint: Checkpoint, options: Mapping[str, Any]) -> str:
        """Return the folder of the transformer in a checkpoint, by the options for loading it."""
        return "transformer"

    @classmethod
    def checkpoint_options(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Read from a checkpoint what the family's constructor wants besides the modules.

        This is asked before any weight is read.

        Raises:
            CheckpointError: the family does not know this kind of model.
        """
        return {}

    @classmethod
    def pipeline_modules(cls, checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
        """Return modules that the pipeline does not load: None, or one from elsewhere."""
        return dict.fromkeys(("transformer", "vae", *cls.unused_parts))

    @classmethod
    def encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        """Encode one prompt with the family's pipeline, as `prompt_outputs` declares.

        Raises:
            InvalidArgumentError: the family takes no prompts, or it is too long.
        """
        if not cls.prompt_outputs:
            raise InvalidArgumentError(f"{cls.__name__} takes no prompts")
        taken = signature(pipeline.encode_prompt).parameters
        common = {name: value for name, value in PROMPT_OPTIONS.items() if name in taken}
        return cls.name_prompt(pipeline.encode_prompt([prompt], **common, **cls.prompt_options))

    @classmethod
    def name_prompt(cls, encoded: Sequence[Any]) -> dict[str, Tensor]:
        """Name the outputs of a pipeline for one prompt, padded if declared."""
        named = zip(cls.prompt_outputs, encoded, strict=False)
        row = {name: value for name, value in named if name is not None}
        return row if cls.prompt_length is None else pad_prompt(row, cls.prompt_length)


def _named(model: nn.Module) -> AbstractContextManager[None]:
    """Name the model whose forward failed; wrong configurations fail deep inside."""
    advice = (
        "; its configuration may be of another model or of another version of diffusers, or "
        "`head` names a module that the forward uses before its last block"
    )
    return translated(CaptureError, f"the forward of {type(model).__name__} failed", advice)
