from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kornia_ditf as kd
from kornia_ditf.errors import CheckpointError, InvalidArgumentError, UnknownBackboneError
from kornia_ditf.loading.weights import without_deprecations, without_progress_bars, without_remarks
from kornia_ditf.utils.borrowing import borrowed, execution_device

Checkpoints = Callable[[str], Path]
OPTIONS: dict[str, Any] = {"long_side": 64, "ensemble": 2, "treatment": "adaln"}
IMAGE = torch.rand(2, 3, 40, 61, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))


def load(folder: Path) -> Any:
    import diffusers

    with without_deprecations(), without_remarks(), without_progress_bars():
        kind: Any = getattr(diffusers, kd.find_backbone(folder).pipeline)
        return kind.from_pretrained(folder)


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Checkpoints) -> Any:
    return load(tiny_checkpoint("flux"))


@pytest.fixture
def pipe(loaded: Any) -> Any:
    """A FLUX pipeline whose modules a test may change."""
    parts = {name: copy.deepcopy(part) for name, part in loaded.components.items()}
    return type(loaded)(**parts)


def modules_of(pipe: Any) -> Iterator[nn.Module]:
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            yield from part.modules()


def state(pipe: Any, *, memory: bool = True) -> list[Any]:
    """What must not change: modes, hooks, and the device, kind and memory of every weight."""
    kept: list[Any] = []
    for module in modules_of(pipe):
        kept += [module.training, len(module._forward_hooks), len(module._forward_pre_hooks)]
        for value in module._parameters.values():
            if value is not None:
                kept += [value.device, value.dtype, value.requires_grad]
                kept += [value.data_ptr(), value._version] if memory else []
    return kept


def describe(given: Any, prompt: str | None = "a cat", **options: Any) -> Tensor:
    return kd.create_descriptor(given, **{**OPTIONS, **options})(IMAGE, prompt).data


@pytest.mark.parametrize("family", ["dit", "pixart-alpha-1024", "sd3.5-medium", "flux"])
def test_a_pipeline_gives_the_features_of_its_folder_and_stays_as_it_is(
    family: str, tiny_checkpoint: Checkpoints
) -> None:
    folder = tiny_checkpoint(family)
    pipe = load(folder)
    for module in (pipe.transformer, pipe.vae):
        module.train()
    before, prompt = state(pipe), "class1" if family == "dit" else "a cat"
    drawn = torch.random.get_rng_state()
    found = describe(pipe, prompt)
    assert state(pipe) == before and torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.equal(found, describe(folder, prompt))


def test_parts_need_the_scheduler_where_the_family_reads_it(tiny_checkpoint: Checkpoints) -> None:
    pipe = load(tiny_checkpoint("dit"))
    parts = (pipe.transformer, pipe.vae)
    assert torch.equal(describe((*parts, pipe.scheduler), None), describe(pipe, None))
    with pytest.raises(CheckpointError, match=r"\(transformer, vae, scheduler\)"):
        kd.create_descriptor(parts)


def test_parts_take_text_from_a_pipeline_a_folder_or_a_conditioning(
    loaded: Any, tiny_checkpoint: Checkpoints
) -> None:
    parts, expected = (loaded.transformer, loaded.vae), describe(loaded)
    conditioning = kd.create_ditf(loaded).backbone.condition(["a cat"])
    for encoder in (loaded, tiny_checkpoint("flux"), conditioning, lambda _: conditioning):
        assert torch.equal(describe(parts, prompt_encoder=encoder), expected)
    with pytest.raises(InvalidArgumentError, match="no text encoders; give it a pipeline"):
        describe(parts)


def test_a_pipeline_without_text_encoders_names_them(pipe: Any) -> None:
    pipe.text_encoder_2 = None
    with pytest.raises(InvalidArgumentError, match="it has no text_encoder_2"):
        describe(pipe)


def test_adapters_count_and_so_does_fusing_them(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    plain, descriptor = describe(pipe), kd.create_descriptor(pipe, **OPTIONS)
    config = peft.LoraConfig(
        r=2, target_modules=["to_q", "norm1.linear"], init_lora_weights=False, lora_alpha=4
    )
    pipe.transformer.add_adapter(config, "drawn")
    adapted = descriptor(IMAGE, "a cat").data
    assert not torch.allclose(adapted, plain, atol=1e-3)
    assert torch.equal(describe(pipe), adapted)
    pipe.fuse_lora(components=["transformer"])
    torch.testing.assert_close(descriptor(IMAGE, "a cat").data, adapted, rtol=0, atol=1e-5)
    pipe.unfuse_lora(components=["transformer"])
    pipe.transformer.disable_adapters()
    torch.testing.assert_close(describe(pipe), plain, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_several_adapters_with_weights_fused_or_not_are_the_merged_weights(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    merged = copy.deepcopy(pipe.transformer)
    for number, name in enumerate("ab"):
        config = peft.LoraConfig(
            r=2 + number, target_modules=["to_q", "norm.linear"], init_lora_weights=False
        )
        pipe.transformer.add_adapter(config, name)
    pipe.transformer.set_adapters(["a", "b"], [0.5, 0.8])
    with torch.no_grad():
        for name, module in pipe.transformer.named_modules():
            for adapter in getattr(module, "lora_A", ()):
                product = module.lora_B[adapter].weight @ module.lora_A[adapter].weight
                merged.get_submodule(name).weight += module.scaling[adapter] * product
    expected = describe((merged, pipe.vae), prompt_encoder=pipe)
    torch.testing.assert_close(describe(pipe), expected, rtol=0, atol=1e-4)
    pipe.fuse_lora(components=["transformer"], adapter_names=["a", "b"])
    torch.testing.assert_close(describe(pipe), expected, rtol=0, atol=1e-4)
    pipe.unload_lora_weights()
    before = state(pipe)
    torch.testing.assert_close(describe(pipe), expected, rtol=0, atol=1e-4)
    assert state(pipe) == before


@pytest.mark.parametrize("how", ["compile", "compile_repeated_blocks"])
def test_compiled_models_give_what_plain_ones_give(how: str, pipe: Any) -> None:
    expected = describe(pipe)
    getattr(pipe.transformer, how)(backend="eager")
    before = state(pipe)
    assert torch.equal(describe(pipe), expected)
    assert state(pipe) == before


def test_pipelines_that_share_a_transformer_are_known_in_memory_and_in_folders(
    pipe: Any, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    import diffusers

    class OwnPipeline(diffusers.FluxImg2ImgPipeline):  # type: ignore[misc]
        pass

    expected = describe(pipe)
    own = OwnPipeline(**pipe.components)
    assert torch.equal(describe(own), expected)
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "FluxInpaintPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    assert torch.equal(describe(folder), expected)


def test_wrappers_of_peft_and_compilers_are_seen_through(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    wrapped = peft.get_peft_model(pipe.transformer, config)
    compiled = torch.compile(wrapped, backend="eager")
    options: dict[str, Any] = {"prompt_encoder": pipe}
    expected = describe((wrapped, pipe.vae), **options)
    assert torch.equal(describe((compiled, pipe.vae), **options), expected)


@pytest.mark.parametrize("how", ["sequential", "whole", "groups", "layerwise"])
def test_offloaded_weights_are_back_in_their_place(how: str, pipe: Any) -> None:
    import accelerate
    from diffusers.hooks import apply_group_offloading

    expected, cpu = describe(pipe), torch.device("cpu")
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        if how == "sequential":
            accelerate.cpu_offload(part, cpu)
        elif how == "whole":
            accelerate.cpu_offload_with_hook(part, cpu)
        elif how == "groups":
            apply_group_offloading(part, cpu, offload_type="leaf_level")
        elif part is pipe.transformer:
            part.enable_layerwise_casting(torch.float16, torch.float32)
    before, found = state(pipe, memory=False), describe(pipe)
    assert state(pipe, memory=False) == before
    if how == "layerwise":
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
        assert pipe.transformer.transformer_blocks[0].attn.to_q.weight.dtype == torch.float16
    else:
        assert torch.equal(found, expected)
        assert execution_device(pipe.transformer) == cpu


def test_a_table_of_an_offloaded_block_is_read_and_sent_back(tiny_checkpoint: Checkpoints) -> None:
    import accelerate

    pipe = load(tiny_checkpoint("pixart-sigma"))
    expected = describe(pipe)
    accelerate.cpu_offload(pipe.transformer, torch.device("cpu"))
    assert torch.equal(describe(pipe), expected)
    assert all(value.is_meta for value in pipe.transformer.parameters())


def test_a_published_name_gives_its_preset_and_checks_the_class(
    loaded: Any, tiny_checkpoint: Checkpoints
) -> None:
    named = kd.create_ditf("flux.1-dev", source=loaded, block=2)
    assert (named.config.timestep, named.config.ensemble) == (260, 8)
    with pytest.raises(InvalidArgumentError, match="sd3-medium takes a SD3Transformer2DModel, got"):
        kd.create_descriptor("sd3-medium", source=loaded)
    with pytest.raises(InvalidArgumentError, match="pass only a model in memory"):
        kd.create_descriptor(loaded, source=tiny_checkpoint("flux"))


def test_a_model_of_a_published_repository_has_its_preset(pipe: Any) -> None:
    pipe.register_to_config(_name_or_path="black-forest-labs/FLUX.1-dev")
    with pytest.raises(InvalidArgumentError, match=r"block must lie in \[0, 4\], got 28"):
        kd.create_descriptor(pipe)
    assert kd.create_ditf(pipe, block=2).config.ensemble == 8


@pytest.mark.parametrize("option", ["dtype", "device", "offload", "revision", "variant"])
def test_options_of_loading_are_refused(option: str, loaded: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{option} applies to loading"):
        kd.create_descriptor(loaded, **{option: "cpu"})


def test_an_unknown_class_is_told_what_is_known_and_how_to_declare_one() -> None:
    class OwnTransformer(nn.Linear):
        pass

    told = r"OwnTransformer; known: .*FluxTransformer2DModel.*DiffusersBackbone.*ModuleBackbone"
    with pytest.raises(UnknownBackboneError, match=told):
        kd.create_descriptor((OwnTransformer(2, 2), None))


@pytest.mark.parametrize("given", [3, (), ("a", "b"), (nn.Linear(1, 1), 3), [nn.Linear(1, 1)] * 4])
def test_what_is_no_model_is_named(given: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="expected a name|must be a VAE"):
        kd.create_descriptor(given)


def test_models_that_read_more_than_an_image_are_refused(pipe: Any) -> None:
    import diffusers

    wide = {**pipe.transformer.config, "in_channels": 96}
    fill = diffusers.FluxTransformer2DModel.from_config(wide)
    with pytest.raises(InvalidArgumentError, match="takes 24 channels and its VAE produces 16"):
        kd.create_descriptor((fill, pipe.vae))


def test_a_cache_that_skips_blocks_is_refused(pipe: Any) -> None:
    from diffusers import FirstBlockCacheConfig

    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(InvalidArgumentError, match="disable_cache"):
        kd.create_descriptor(pipe)


def test_gradients_reach_borrowed_weights_that_want_them() -> None:
    layer = nn.Conv2d(1, 1, 1)
    with borrowed(layer):
        assert layer.weight.requires_grad
    with torch.no_grad(), borrowed(layer):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad
