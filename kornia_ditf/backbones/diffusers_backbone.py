"""Loading the model of a family that is declared: from files, or from what is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.declared import DeclaredBackbone
from kornia_ditf.backbones.offloading import OffloadedBlocks
from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.dense import InMemory
from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.checkpoint import Checkpoint, take_hub_options
from kornia_ditf.loading.latents import execution_place, latent_channels
from kornia_ditf.loading.memory import LoadedModel, LoadedPromptEncoder
from kornia_ditf.loading.plan import LoadingPlan, plan_loading
from kornia_ditf.loading.prompts import CachedPromptEncoder
from kornia_ditf.loading.single_file import infer_config, load_own_vae, load_single_file
from kornia_ditf.loading.weight_file import WeightFile, as_file, refuse_config
from kornia_ditf.loading.weights import Layout, load_transformer
from kornia_ditf.noise import VariancePreserving
from kornia_ditf.types import Conditioning
from kornia_ditf.utils.borrowing import set_execution_device
from kornia_ditf.utils.checks import read_placement


class DiffusersBackbone(DeclaredBackbone):
    """A transformer and VAE of diffusers; a family's subclass only declares where its values are.

    The constructor is `DeclaredBackbone`'s.
    """

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
        names = (cls.transformer_class, cls.pipeline_class or "", cls.vae_class)
        model, pipeline, vae = (name.rpartition(".")[2] for name in names)
        family = {
            "pipeline": pipeline or None,
            "load": cls.from_pretrained,
            "plan": cls.plan_loading,
            "in_memory": InMemory(
                model=getattr(cls.transformer_module, "__name__", model),
                make=cls.from_loaded,
                pipeline=pipeline,
                vae=vae,
            ),
            "blocks_from": cls.blocks_from,
            "width_from": cls.width_from,
            "needs": cls.needs,
            "pixels_per_token": pixels_per_token,
            "long_side": long_side,
        }
        return make(**family | known)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        block: int | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        offload: bool | str = False,
        quantization_config: object = None,
        config: str | Path | None = None,
        architecture: Mapping[str, Mapping[str, Any]] | None = None,
        quantize: str | None = None,
        compile: bool | str = False,  # noqa: A002 - what torch calls it
        **options: Any,
    ) -> Self:
        """Load what a checkpoint in the diffusers layout needs up to a block, and no more.

        Args:
            source: a hub id or a local folder; or a single file of the transformer's weights,
                safetensors or GGUF, in diffusers' names or the original ones.
            block: the last block whose input will be asked for; None loads all.
            dtype: of the transformer; None is bfloat16 on an accelerator, float32 on a CPU. The
                VAE's encoder stays in float32: some overflow float16.
            device: where to compute.
            offload: `"layers"` keeps the weights of the blocks on the CPU, and copies each block's
                to the device while the one before it runs. True keeps all of the transformer's on
                the CPU, and brings each module's when it runs (accelerate's cpu_offload), which
                takes the least memory and the most time.
            quantization_config: one of diffusers' quantisation configurations.
            config: for a single file, the folder or hub id that holds its configurations, VAE and
                text encoders.
            architecture: for a single file, configurations by part that are tried before those.
            quantize: keep the weights of the blocks' linear layers in 8 bits, as `int8` or `fp8`;
                they compute in `dtype` as before.
            compile: compile the blocks, the VAE's encoder and the treatment, each by itself, with
                `torch.compile`; or the name of one of its backends. The first image of a size
                takes longer; descriptors are the same up to rounding.
            options: `revision`, `token`, `cache_dir`, `local_files_only` and `variant` as for
                `Checkpoint`; all others as for the family's class.

        Raises:
            CheckpointError: a file is missing, corrupt, or of another model.
            HubError: the hub does not give a file.
            InvalidArgumentError: an option is wrong, or the block is out of range.
        """
        if not isinstance(offload, bool) and offload != "layers":
            raise InvalidArgumentError(f"offload must be True, False or 'layers', got {offload!r}")
        if offload and compile:
            raise InvalidArgumentError(
                "compile=True cannot be combined with offload: compiled code is bound to the "
                "weights' device"
            )
        if quantize is not None and (offload is True or quantization_config is not None):
            raise InvalidArgumentError(
                "quantize cannot be combined with offload=True or quantization_config: leave one "
                "of them out, or use offload='layers'"
            )
        to, dtype = read_placement(device, dtype)
        file, checkpoint = cls._open(source, config, take_hub_options(options))
        own_options = cls.checkpoint_options(checkpoint)  # first: a model may be refused by them
        identity, vae = checkpoint.identity, None
        if file is None:
            transformer = load_transformer(
                checkpoint,
                cls.layout(),
                last_block=block,
                dtype=dtype,
                quantization_config=quantization_config,
                subfolder=cls.transformer_folder(checkpoint, options),
            )
        else:
            own = cls._file_config(file, checkpoint, architecture)
            transformer = load_single_file(file, cls.layout(), own, last_block=block, dtype=dtype)
            vae = load_own_vae(file, cls.vae_class, checkpoint)
            identity = f"{file.identity} {identity}"
        vae = cls.load_vae(checkpoint) if vae is None else vae
        encoder = cls._cached_prompts(checkpoint, dtype, to)
        backbone = cls(transformer, vae, **{"prompt_encoder": encoder, **own_options, **options})
        backbone._check_channels(checkpoint.source)
        backbone.identity = identity
        if quantize is not None:
            backbone.quantise(quantize)
        backbone.eval().requires_grad_(False)._place(to, offload)
        if compile:
            backbone.compile_parts(compile if isinstance(compile, str) else "inductor")
        return backbone

    @classmethod
    def from_loaded(cls, loaded: LoadedModel, **options: Any) -> Self:
        """Use a transformer and a VAE in memory, where and as they are.

        Args:
            loaded: the model's parts; those of a pipeline embed prompts with its text encoders.
            options: as for the family's class. `prompt_encoder` may also be a pipeline whose text
                encoders embed prompts, the folder or hub id of text encoders, or a `Conditioning`
                that stands for every prompt.

        Raises:
            CheckpointError: a part is missing, or the family does not know this kind of model.
            InvalidArgumentError: an option is wrong, or the VAE's latents do not fit.
        """
        files: Any = loaded  # answers for its configurations as a Checkpoint does
        encoder = cls._prompt_encoder(options.pop("prompt_encoder", loaded.pipeline), loaded)
        known = {"prompt_encoder": encoder, **cls.checkpoint_options(files)}
        made = cls(loaded.model, loaded.vae, **{**known, **options})
        made._check_channels(loaded.source)
        return made

    @classmethod
    def plan_loading(
        cls,
        source: str | Path,
        *,
        block: int | None = None,
        dtype: torch.dtype = torch.bfloat16,
        architecture: Mapping[str, Mapping[str, Any]] | None = None,
        config: str | Path | None = None,
        **hub: Any,
    ) -> LoadingPlan:
        """Estimate what `from_pretrained` would download and hold in memory.

        Args:
            source: a hub id, a local folder or a single file, as `from_pretrained` takes it.
            block: the last block to load; None is all.
            dtype: of the transformer.
            architecture: configurations to fall back to; see `plan.plan_loading`.
            config: as for `from_pretrained`.
            hub: `revision`, `token`, `cache_dir`, `local_files_only`, `variant`.
        """
        file, checkpoint = cls._open(source, config, hub)
        return plan_loading(
            checkpoint,
            cls.layout(),
            last_block=block,
            dtype=dtype,
            architecture=architecture,
            vae_class=cls.vae_class,
            file=None if file is None else (file, cls._file_config(file, checkpoint, architecture)),
            folder=cls.transformer_folder(checkpoint, {}),
        )

    @classmethod
    def _open(
        cls, source: str | Path, config: str | Path | None, hub: Mapping[str, Any]
    ) -> tuple[WeightFile | None, Checkpoint]:
        """Open a single file, if the source is one, and the checkpoint that holds the rest."""
        path = as_file(source)
        if path is None:
            refuse_config(source, config)
            return None, Checkpoint(source, **hub)
        if config is None:
            raise InvalidArgumentError(
                f"{path} holds only a transformer; pass config=... with the folder or hub id of "
                "its configurations, VAE and text encoders"
            )
        return WeightFile(path), Checkpoint(config, **hub)

    @classmethod
    def _file_config(
        cls,
        file: WeightFile,
        checkpoint: Checkpoint,
        architecture: Mapping[str, Mapping[str, Any]] | None,
    ) -> Mapping[str, Any]:
        known = architecture["transformer"] if architecture else None
        found = infer_config(file, cls.layout(), cls.blocks_from, known)[0] if known else None
        return found or checkpoint.json("transformer/config.json")

    @classmethod
    def layout(cls) -> Layout:
        """Return where the family's transformer keeps its blocks."""
        return Layout(
            class_name=cls.transformer_class,
            block_lists=tuple(stream.blocks for stream in cls.streams),
            unused=cls.head,
            model_class=cls.transformer_module,
        )

    @classmethod
    def _prompt_encoder(cls, given: Any, loaded: LoadedModel) -> Any:
        if isinstance(given, str | Path):
            device, dtype = execution_place(loaded.model)
            return cls._cached_prompts(Checkpoint(given), dtype, device)
        if isinstance(given, Conditioning):
            return lambda prompts: given.expand(len(prompts))
        if hasattr(given, "encode_prompt"):
            return LoadedPromptEncoder(given, cls.encode_prompt)
        return None if given is loaded.pipeline else given  # DiT's pipeline reads no text

    @classmethod
    def _cached_prompts(
        cls, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
    ) -> CachedPromptEncoder | None:
        if cls.pipeline_class is None:
            return None
        return CachedPromptEncoder(
            checkpoint,
            cls.pipeline_class,
            cls.encode_prompt,
            dtype=dtype,
            device=device,
            modules=cls.pipeline_modules,
        )

    def _check_channels(self, source: str) -> None:
        channels = None if self.vae is None else latent_channels(self.vae)
        if channels not in (None, self.latent_channels):
            raise InvalidArgumentError(
                f"{source} takes {self.latent_channels} channels and its VAE produces {channels}: "
                "models for inpainting, control or image-to-video need further inputs, and are "
                "not supported"
            )

    def _place(self, device: torch.device, offload: bool | str) -> None:
        if not offload:
            self.to(device)
            return
        if offload is True:
            from accelerate import cpu_offload

            cpu_offload(self.transformer, execution_device=device)
        else:
            self._offload_blocks(device)
        if self.vae is not None:
            self.vae.to(device)

    def _offload_blocks(self, device: torch.device) -> None:
        """Keep the blocks' weights on the CPU, and move the rest of the transformer to a device."""
        blocks = self.loaded_blocks()
        within = {id(tensor) for block in blocks for tensor in _tensors(block)}
        self._offloaded = OffloadedBlocks(blocks, device)
        for tensor in _tensors(self.transformer):
            if id(tensor) not in within:
                tensor.data = tensor.data.to(device)
        set_execution_device(self.transformer, device)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


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
    except Exception as error:  # of diffusers' schedulers, or a schedule that is none
        raise CheckpointError(
            f"{checkpoint.source}/{file} has no valid noise schedule ({error}); download it again"
        ) from error
