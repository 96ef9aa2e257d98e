"""Every family keeps the rules of backbones, on a tiny random model of its real architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia_ditf_zoo.catalogue import SPECS
from kornia_ditf_zoo.family import fit_grid
from safetensors.torch import load_file, save_file
from tiny_zoo import SAVERS
from torch import Tensor, nn

from kornia_ditf import find_backbone, list_backbones
from kornia_ditf.backbones.spec import NEUTRAL_RULE
from kornia_ditf.errors import CheckpointError, InvalidArgumentError, MissingExtraError
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.memory import take_apart
from kornia_ditf.registry.families import describe_loaded
from kornia_ditf.testing import BACKBONE_RULES, check_backbone

SPEC = {spec.name: spec for spec in SPECS}
Checkpoints = Callable[[str], Path]


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # Kandinsky's own
@pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi's
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SAVERS)
def test_every_rule_of_backbones_is_kept(
    name: str, dtype: str, tiny_zoo: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kornia_ditf_zoo.hunyuanvideo._IMAGE_TOKENS", 3)  # of 729, for time
    held = check_backbone(SPEC[name], tiny_zoo(name), dtype=dtype)
    assert len(held) == len(BACKBONE_RULES)


def test_every_family_has_a_tiny_model() -> None:
    families = {spec.load.__self__ for spec in SPECS}  # type: ignore[attr-defined]
    assert {SPEC[name].load.__self__ for name in SAVERS} == families  # type: ignore[attr-defined]
    assert len({family.transformer_class for family in families}) >= 15


def test_backbones_are_found_by_name_hub_id_and_folder(tiny_zoo: Checkpoints) -> None:
    installed = list_backbones()
    for spec in SPECS:
        assert installed[spec.name] is spec and find_backbone(spec.repo) is spec
    for name in ("z-image-turbo", "auraflow-0.3", "wan2.1-1.3b"):
        found = find_backbone(tiny_zoo(name))
        assert found.load == SPEC[name].load and found.width == 32


def test_no_number_is_invented() -> None:
    for spec in SPECS:
        assert not spec.calibrated and spec.source == NEUTRAL_RULE and spec.license
        assert (spec.block, spec.timestep) == (spec.blocks // 2, 250)
        assert spec.massive_channels is None and spec.ensemble == 1


@pytest.mark.parametrize("name", ["lumina-image-2.0", "cogview4", "qwen-image", "chroma1-hd"])
@torch.no_grad()
def test_an_image_does_not_depend_on_the_length_of_anothers_prompt(
    name: str, tiny_zoo: Checkpoints
) -> None:
    backbone = SPEC[name].load(tiny_zoo(name))
    prompts = ["a long prompt, longer than sixteen letters", "a", "ab", "a long prompt, again"]
    told = backbone.condition(prompts)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(4, backbone.latent_channels, 8, 12, generator=generator)
    block = backbone.blocks - 1
    together = backbone.tap(latent, 250, told, block=block)
    for row in range(4):
        alone = backbone.tap(latent[row : row + 1], 250, told.rows(row, row + 1), block=block)
        torch.testing.assert_close(together.x[row : row + 1], alone.x, rtol=0, atol=1e-5)
        assert together.scale is not None and alone.scale is not None
        torch.testing.assert_close(together.scale[row : row + 1], alone.scale)


def sides() -> st.SearchStrategy[int]:
    return st.integers(1, 200)


@settings(deadline=None)
@given(sides(), sides(), sides(), sides())
def test_grids_are_fitted_as_the_pipelines_fit_them(
    rows: int, columns: int, base_rows: int, base_columns: int
) -> None:
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    expected = get_resize_crop_region_for_grid((rows, columns), base_columns, base_rows)
    assert fit_grid((rows, columns), (base_rows, base_columns)) == expected


@pytest.mark.parametrize("name", ["cogvideox-2b", "cogview3-plus", "hunyuandit-1.2"])
def test_noise_is_mixed_as_the_checkpoints_scheduler_mixes_it(
    name: str, tiny_zoo: Checkpoints
) -> None:
    import diffusers

    config = json.loads((tiny_zoo(name) / "scheduler/scheduler_config.json").read_text())
    kind: Any = getattr(diffusers, config["_class_name"])
    scheduler = kind.from_config(config)
    latent, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
    schedule = SPEC[name].load(tiny_zoo(name), block=0).schedule
    for timestep in (0, 261, 999):
        expected = scheduler.add_noise(latent, noise, torch.tensor([timestep]))
        torch.testing.assert_close(
            schedule.mix(latent, noise, timestep), expected, rtol=0, atol=1e-5
        )


@torch.no_grad()
def test_wan_2_2_takes_the_transformer_of_its_end_of_the_noise(tiny_zoo: Checkpoints) -> None:
    import diffusers

    folder, spec = tiny_zoo("wan2.2-a14b"), SPEC["wan2.2-a14b"]
    whole: Any = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    latent = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    taps = []
    for expert, timestep, other in (("low", 250, 900), ("high", 900, 250)):
        backbone = spec.load(folder, expert=expert)
        told = backbone.condition([""])
        taps.append(backbone.tap(latent, timestep, told, block=2).x)
        with pytest.raises(InvalidArgumentError, match="load it with expert="):
            backbone.tap(latent, other, told, block=2)
        assert spec.in_memory is not None
        in_memory: Any = spec.in_memory.make(take_apart(whole), expert=expert)
        assert torch.equal(in_memory.tap(latent, timestep, told, block=2).x, taps[-1])
    assert not torch.equal(*taps)
    assert spec.plan is not None
    downloads = spec.plan(folder).download
    assert downloads == {}  # all is here
    with pytest.raises(InvalidArgumentError, match="expert must be one of low, high"):
        spec.load(folder, expert="both")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("auraflow-0.3", (18, 4)),
        ("cogview3-plus", (4, 18)),
        ("lumina-image-2.0", (34, 2)),
        ("z-image-turbo", (2, 34)),
        ("hidream-i1-full", (18, 16)),
        ("wan2.1-1.3b", (2, 66)),
    ],
)
def test_more_tokens_than_there_are_positions_are_refused(
    name: str, shape: tuple[int, int], tiny_zoo: Checkpoints
) -> None:
    backbone = SPEC[name].load(tiny_zoo(name), block=0)
    latent = torch.zeros(1, backbone.latent_channels, *shape)
    with pytest.raises(InvalidArgumentError, match="smaller long_side"):
        backbone.tap(latent, 250, backbone.condition([""]), block=0)


def test_hidream_takes_llama_from_its_own_repository(
    tiny_zoo: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kornia_ditf_zoo import hidream

    whole = tiny_zoo("hidream-i1-full")
    part = tmp_path / "published"
    shutil.copytree(whole, part, ignore=shutil.ignore_patterns("*_4"))
    index = json.loads((whole / "model_index.json").read_text())
    published = {name: value for name, value in index.items() if not name.endswith("_4")}
    (part / "model_index.json").write_text(json.dumps(published))
    llama = tmp_path / "llama"
    shutil.copytree(whole / "text_encoder_4", llama)
    shutil.copytree(whole / "tokenizer_4", llama, dirs_exist_ok=True)
    monkeypatch.setattr(hidream, "LLAMA", str(llama))
    found, expected = (
        SPEC["hidream-i1-full"].load(folder, block=0).condition(["a cat"])
        for folder in (part, whole)
    )
    for name, value in expected.tensors.items():
        assert torch.equal(found[name], value), name


def test_prx_with_either_vae_is_told_apart(tiny_zoo: Checkpoints) -> None:
    kl, dc = (SPEC[name].load(tiny_zoo(name), block=0) for name in ("prx-512", "prx-512-dc"))
    assert (kl.pixels_per_token, dc.pixels_per_token) == (16, 32)
    with pytest.raises(CheckpointError, match="AutoencoderDC"):
        SPEC["prx-512"].load(tiny_zoo("prx-512-dc"), block=0)


def test_guidance_is_told_to_flux2_dev_and_named_in_its_settings(tiny_zoo: Checkpoints) -> None:
    weak, strong = (
        SPEC["flux.2-dev"].load(tiny_zoo("flux.2-dev"), guidance=guidance) for guidance in (1, 9)
    )
    latent = torch.randn(1, 16, 4, 6)
    told = weak.condition([""])
    scales = [b.tap(latent, 250, told, block=0).scale for b in (weak, strong)]
    assert isinstance(scales[0], Tensor) and not torch.equal(scales[0], scales[1])
    assert weak.settings() != strong.settings()


@pytest.mark.parametrize("name", SAVERS)
def test_a_transformer_in_memory_finds_its_family(name: str, tiny_zoo: Checkpoints) -> None:
    def part(class_name: str, config: Any) -> nn.Module:
        module = type(class_name, (nn.Module,), {"encode": None})()
        module.config = config
        return module

    index = Checkpoint(tiny_zoo(name)).index
    config = json.loads((tiny_zoo(name) / "transformer/config.json").read_text())
    vae = part(index["vae"][1], {}) if "vae" in index else None
    parts = (part(index["transformer"][1], config), vae)
    kind = type(index["_class_name"], (SimpleNamespace,), {})
    pipeline = kind(components={}, transformer=parts[0], vae=parts[1], config=index)
    assert describe_loaded(take_apart(pipeline), SPECS).load == SPEC[name].load


def test_sana_sprint_is_refused_by_its_name(tiny_zoo: Checkpoints, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_zoo("sana-1600m-1024"), tmp_path / "sprint"))
    path = folder / "transformer/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "guidance_embeds": True}))
    with pytest.raises(CheckpointError, match=r"sprint is a Sana-Sprint.* use a Sana, such as"):
        find_backbone(folder).load(folder)


def test_a_file_of_an_architecture_that_is_a_classs_default_is_known(
    tiny_zoo: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    folder = tiny_zoo("wan2.1-1.3b")
    path = tmp_path / "wan.safetensors"
    shards = (folder / "transformer").glob("*.safetensors")
    save_file({name: v for shard in shards for name, v in load_file(shard).items()}, path)
    with pytest.raises(CheckpointError, match="like wan2.1-1.3b.*pass config="):
        find_backbone(path)
    config = json.loads((folder / "transformer/config.json").read_text())

    class Small(diffusers.WanTransformer3DModel):  # type: ignore[misc]
        pass

    given = {name: v for name, v in config.items() if not name.startswith("_") and v is not None}
    defaults = [Parameter(name, Parameter.KEYWORD_ONLY, default=v) for name, v in given.items()]
    Small.__signature__ = Signature(defaults)
    Small.__name__ = "WanTransformer3DModel"
    monkeypatch.setattr(diffusers, "WanTransformer3DModel", Small)
    found = find_backbone(path)
    assert (found.load, found.blocks, found.width) == (SPEC["wan2.1-1.3b"].load, 3, 32)
    # Other values than shapes are the published model's, not the class's.
    assert found.base == SPEC["wan2.1-1.3b"].repo and not found.architecture


def test_a_family_that_an_older_diffusers_lacks_is_named_and_the_others_work(
    tiny_zoo: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from kornia_ditf import create_descriptor
    from kornia_ditf.cli.app import app

    monkeypatch.setattr("kornia_ditf.utils.provenance.version", lambda name: "0.41.1")
    with pytest.raises(MissingExtraError, match="needs diffusers>=0.42, and diffusers 0.41.1"):
        create_descriptor("flux.3-klein", source=tiny_zoo("flux.3-klein"))
    create_descriptor("wan2.1-1.3b", source=tiny_zoo("wan2.1-1.3b"), block=1)
    listed = CliRunner().invoke(app, ["backbones", "list"], env={"COLUMNS": "200"}).output
    rows = {line.split()[0]: line for line in listed.splitlines() if line.strip()}
    assert "needs diffusers>=0.42" in rows["flux.3-klein"]
    assert "uncalibrated" in rows["qwen-image-2.1"]
