"""A diffusers transformer and VAE behind the `Backbone` interface, by a family's declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.base import Backbone
from kornia_ditf.backbones.declaration import Declaration, Inputs
from kornia_ditf.backbones.inputs import batch_time, pack, pad_prompt
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import CaptureError, CheckpointError, DiTFError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint, take_hub_options
from kornia_ditf.loading.latents import encode_images, execution_place, pixels_per_cell
from kornia_ditf.loading.plan import LoadingPlan, plan_loading
from kornia_ditf.loading.prompts import CachedPromptEncoder
from kornia_ditf.loading.weights import load_transformer, load_vae_encoder
from kornia_ditf.noise import NoiseSchedule, VariancePreserving
from kornia_ditf.tap import capture_blocks, count_blocks
from kornia_ditf.types import Conditioning, Tap
from kornia_ditf.utils.checks import read_placement
from kornia_ditf.utils.isolation import isolated

Posterior = Literal["mode", "sample"]
PromptEncoder = Callable[[Sequence[str]], Conditioning]


class DiffusersBackbone(Declaration, Backbone):
    """A diffusers transformer and VAE; a family's subclass declares and rewrites no forward.

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
        if posterior not in get_args(Posterior):
            raise InvalidArgumentError(f"posterior must be 'mode' or 'sample', got {posterior!r}")
        self.transformer, self.vae = transformer, vae
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
        return self.packed or int(self.config.patch_size)

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
        return None

    def settings(self) -> str:
        quantized = getattr(self.config, "quantization_config", None)
        dtype = execution_place(self.transformer)[1]
        return f"{dtype} posterior={self.posterior} seed={self.seed} quantized={quantized}"

    def encode(self, image: Tensor) -> Tensor:
        if self.vae is None:
            raise InvalidArgumentError("this backbone has no VAE; build it with vae=...")
        sample = self.posterior == "sample"
        with _named(self.vae):
            return encode_images(
                self.vae, image, sample=sample, seed=self.seed, patch_first=self.patch_first
            )

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        if self.prompt_encoder is None:
            raise InvalidArgumentError(
                f"this {type(self).__name__} was built without a prompt encoder; "
                "build it with prompt_encoder=..., or give it a Conditioning"
            )
        return self.prompt_encoder(prompts)

    def taps(
        self, latent: Tensor, timestep: float, conditioning: Conditioning, *, blocks: Sequence[int]
    ) -> dict[int, Tap]:
        self.schedule.check(timestep)
        grid = self._token_grid(latent)
        device, dtype = execution_place(self.transformer)
        conditioning = conditioning.expand(len(latent)).to(device, dtype)
        latent = latent.to(device, dtype)
        with isolated(self.transformer), _named(self.transformer):
            inputs = self.transformer_inputs(latent, timestep, conditioning)
            return capture_blocks(self.transformer, self.streams, blocks, inputs, grid=grid)

    def _token_grid(self, latent: Tensor) -> tuple[int, int]:
        patch, channels = self.patch_size, self.latent_channels
        if latent.ndim != 4 or latent.shape[1] != channels or not latent.numel():
            raise InvalidArgumentError(
                f"latent must have the shape (B, {channels}, h, w), got {tuple(latent.shape)}"
            )
        height, width = latent.shape[-2:]
        if height % patch or width % patch:
            raise InvalidArgumentError(
                f"latent sides must be multiples of {patch}, got {height} x {width}"
            )
        if self.max_cells is not None and max(height, width) > self.max_cells:
            raise InvalidArgumentError(
                f"this model has positions for latents of up to {self.max_cells} x "
                f"{self.max_cells} cells, got {height} x {width}; give a smaller long_side"
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
        declare; a family with more adds it to them.

        Args:
            latent: noisy latents (B, C, h, w) in the transformer's dtype, on its device.
            timestep: the paper's timestep in [0, 1000].
            conditioning: B rows, on the transformer's device.
        """
        told = {argument: conditioning[name] for argument, name in self.prompt_inputs.items()}
        # Some transformers index with their masks, and all take booleans.
        masks = {n: v.bool() for n, v in told.items() if self.prompt_inputs[n].endswith("_mask")}
        return {
            "hidden_states": self.arrange(latent),
            "timestep": batch_time(latent, timestep, self.time),
            **told,
            **masks,
        }

    @classmethod
    def spec(
        cls, *, pixels_per_token: int = 16, long_side: int = 1024, **known: Any
    ) -> BackboneSpec:
        """Describe a published model of this family, as a plugin registers it.

        Args:
            pixels_per_token: side of the square of pixels that one token covers.
            long_side: the resolution at which the model was trained.
            known: the other fields of `BackboneSpec`; what the class itself knows may be left out.
                Without a `block`, the spec is an uncalibrated one with the neutral preset.

        Raises:
            InvalidArgumentError: a value has a wrong type, or is out of range.
        """
        make = BackboneSpec if "block" in known else BackboneSpec.uncalibrated
        family = {
            "pipeline": cls.pipeline_class,
            "load": cls.from_pretrained,
            "plan": cls.plan_loading,
            "blocks_from": cls.blocks_from,
            "width_from": cls.width_from,
        }
        sizes = {"pixels_per_token": pixels_per_token, "long_side": long_side}
        return make(**family | sizes | known)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        block: int | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        offload: bool = False,
        quantization_config: object = None,
        **options: Any,
    ) -> Self:
        """Load what a checkpoint in the diffusers layout needs up to a block, and no more.

        Args:
            source: a hub id or a local folder.
            block: the last block whose input will be asked for; None loads all.
            dtype: of the transformer; None is bfloat16 on an accelerator, float32 on a CPU. The
                VAE's encoder stays in float32: some overflow float16.
            device: where to compute.
            offload: keep the transformer's weights on the CPU and bring each layer to the device
                only while it runs (accelerate's cpu_offload).
            quantization_config: one of diffusers' quantisation configurations.
            options: `revision`, `token`, `cache_dir`, `local_files_only` and `variant` as for
                `Checkpoint`; all others as for the family's class.

        Raises:
            CheckpointError: a file is missing, corrupt, or of another model.
            HubError: the hub does not give a file.
            InvalidArgumentError: an option is wrong, or the block is out of range.
        """
        place, dtype = read_placement(device, dtype)
        checkpoint = Checkpoint(source, **take_hub_options(options))
        own_options = cls.checkpoint_options(checkpoint)  # first: a model may be refused by them
        transformer = load_transformer(
            checkpoint,
            cls.transformer_class,
            block_lists=[stream.blocks for stream in cls.streams],
            unused=cls.head,
            last_block=block,
            dtype=dtype,
            quantization_config=quantization_config,
            model_class=cls.transformer_module,
        )
        vae = cls.load_vae(checkpoint)
        encoder = None
        if cls.pipeline_class is not None:
            encoder = CachedPromptEncoder(
                checkpoint,
                cls.pipeline_class,
                cls.encode_prompts,
                dtype=dtype,
                device=place,
                modules=cls.pipeline_modules,
            )
        backbone = cls(
            transformer,
            vae,
            prompt_encoder=encoder,
            **own_options,
            **options,
        )
        backbone.identity = checkpoint.identity
        return backbone.eval().requires_grad_(False)._place(place, offload)

    @classmethod
    def plan_loading(
        cls,
        source: str | Path,
        *,
        block: int | None = None,
        dtype: torch.dtype = torch.bfloat16,
        architecture: Mapping[str, Mapping[str, Any]] | None = None,
        **hub: Any,
    ) -> LoadingPlan:
        """Work out what `from_pretrained` would download and hold, before it does.

        Args:
            source: a hub id or a local folder.
            block: the last block to load; None is all.
            dtype: of the transformer.
            architecture: configurations to fall back to; see `plan.plan_loading`.
            hub: `revision`, `token`, `cache_dir`, `local_files_only`, `variant`.
        """
        return plan_loading(
            Checkpoint(source, **hub),
            cls.transformer_class,
            block_lists=[stream.blocks for stream in cls.streams],
            unused=cls.head,
            last_block=block,
            dtype=dtype,
            architecture=architecture,
            vae_class=cls.vae_class,
            model_class=cls.transformer_module,
        )

    def _place(self, device: torch.device, offload: bool) -> Self:
        if not offload:
            return self.to(device)
        from accelerate import cpu_offload

        cpu_offload(self.transformer, execution_device=device)
        if self.vae is not None:
            self.vae.to(device)
        return self

    @classmethod
    def load_vae(cls, checkpoint: Checkpoint) -> nn.Module | None:
        """Load the encoder of the checkpoint's VAE, in float32."""
        return load_vae_encoder(checkpoint, cls.vae_class, dtype=torch.float32)

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
        return {"transformer": None, "vae": None}

    @classmethod
    def encode_prompts(cls, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode prompts with the family's pipeline, one row each, as `prompt_outputs` declares.

        Raises:
            InvalidArgumentError: the family takes no prompts, or one is too long.
        """
        if not cls.prompt_outputs:
            raise InvalidArgumentError(f"{cls.__name__} takes no prompts")
        # One at a time, so that the pipeline pads none to the length of another.
        rows = [cls._encode_prompt(pipeline, prompt) for prompt in prompts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @classmethod
    def _encode_prompt(cls, pipeline: Any, prompt: str) -> dict[str, Tensor]:
        encoded = pipeline.encode_prompt([prompt], **cls.prompt_options)
        named = zip(cls.prompt_outputs, encoded, strict=False)
        row = {name: value for name, value in named if name is not None}
        return row if cls.prompt_length is None else pad_prompt(row, cls.prompt_length)


def read_schedule(
    checkpoint: Checkpoint,
    make: Callable[[dict[str, Any]], VariancePreserving] = VariancePreserving.from_scheduler_config,
) -> VariancePreserving:
    """Read the noise schedule of a checkpoint's own scheduler.

    Args:
        checkpoint: whose schedule.
        make: makes it of the scheduler's configuration; by default from DDPM's betas.

    Raises:
        CheckpointError: it is missing, damaged or of no such scheduler.
    """
    file = "scheduler/scheduler_config.json"
    config = checkpoint.json(file)
    try:
        return make(config)
    except Exception as error:  # of diffusers' schedulers
        raise CheckpointError(
            f"{checkpoint.source}/{file} gives no noise schedule ({error}); download it again"
        ) from error


@contextmanager
def _named(model: nn.Module) -> Iterator[None]:
    """Name the model whose forward failed; wrong configurations fail deep inside."""
    try:
        yield
    except (DiTFError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CaptureError(
            f"the forward of {type(model).__name__} failed with {type(error).__name__}: {error}; "
            "its configuration may be of another model or of another version of diffusers"
        ) from error
