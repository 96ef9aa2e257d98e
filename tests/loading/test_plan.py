from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import REPO, FakeHub, http_error
from torch import nn

from kornia_ditf.backbones import SPECS
from kornia_ditf.backbones.flux import FluxBackbone
from kornia_ditf.errors import CheckpointError, GatedRepositoryError, InvalidArgumentError
from kornia_ditf.loading import plan as plan_module
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weights import build_empty, leave_out
from kornia_ditf.registry.lookup import find_backbone

Checkpoints = Callable[[str], Path]
BY_NAME = {spec.name: spec for spec in SPECS}
NO_HUB = {"local_files_only": True}


def bytes_of(model: nn.Module) -> int:
    """Count what a loaded model keeps of its checkpoint."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("name", "block", "kept", "whole", "unit"),
    [
        ("flux.1-dev", 28, "15.87", "23.80", 0.5e9),
        ("sd3.5-large", 23, "10.30", "16.11", 0.5e9),
        ("sd3.5-medium", 9, "2.07", "4.49", 0.5e9),
        ("dit-xl-2-256", 14, "0.403", "0.750", 1e9),
        ("pixart-alpha-1024", 14, "0.335", "0.611", 1e9),
    ],
)
def test_published_architectures_have_the_measured_sizes(
    name: str, block: int, kept: str, whole: str, unit: float
) -> None:
    """Parameters up to a block, output head included: billions, or GB at two bytes for each."""
    backbone = BY_NAME[name].load.__self__  # type: ignore[attr-defined]
    config = dict(BY_NAME[name].architecture["transformer"])
    model = build_empty(config, backbone.transformer_class, torch.bfloat16)

    def count() -> str:
        digits = len(kept.split(".")[1])
        return f"{sum(p.numel() for p in model.parameters()) / unit:.{digits}f}"

    assert count() == whole
    leave_out(model, [stream.blocks for stream in backbone.streams], (), block)
    assert count() == kept


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - {"nano"}))
def test_every_built_in_backbone_is_planned_without_network(name: str) -> None:
    spec = BY_NAME[name]
    assert spec.plan is not None
    plan = spec.plan(spec.repo, block=spec.block, architecture=spec.architecture, **NO_HUB)
    assert plan.download is None and plan.prompt_download is None
    assert "architecture alone" in plan.source
    assert 0.3 < plan.transformer_held / plan.transformer_whole < 0.7
    assert plan.held == plan.transformer_held + plan.vae_held
    # In float32, the encoder has 34 of the VAE's 84 million parameters.
    assert (round(plan.vae_held / 4e6), round(plan.vae_whole / 4e6)) == (34, 84)


def test_stored_positions_count_as_held() -> None:
    """384 x 384 positions of 1536 channels: the published weight file has 4.94 GB, not 4.49."""
    spec = BY_NAME["sd3.5-medium"]
    assert spec.plan is not None
    plan = spec.plan(spec.repo, architecture=spec.architecture, **NO_HUB)
    assert round(plan.transformer_whole / 1e9, 2) == 4.94


@pytest.mark.parametrize("family", ["dit", "pixart-sigma", "sd3.5-medium", "flux", "nano"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_planned_is_what_is_held(
    family: str, dtype: torch.dtype, tiny_checkpoint: Checkpoints
) -> None:
    folder = tiny_checkpoint(family)
    spec = find_backbone(folder)
    assert spec.plan is not None
    for block in (0, 2, spec.blocks - 1):
        plan = spec.plan(folder, block=block, dtype=dtype)
        backbone = spec.load(folder, block=block, dtype=dtype)
        assert plan.transformer_held == bytes_of(backbone.transformer)
        assert plan.vae_held == (0 if backbone.vae is None else bytes_of(backbone.vae))
        assert plan.download == {} and plan.prompt_download == 0


@pytest.mark.parametrize("family", ["dit", "flux", "nano"])
def test_each_option_holds_what_is_planned(
    family: str, tiny_checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_checkpoint(family)
    spec = find_backbone(folder)
    assert spec.plan is not None
    monkeypatch.setattr(plan_module, "find_spec", lambda name: None)
    plan = spec.plan(folder, block=2, dtype=torch.bfloat16)
    held = dict(plan.by_option)
    assert held['dtype="bfloat16"'] == plan.held
    assert held["offload=True"] < held['offload="layers"'] < held['dtype="bfloat16"']

    def load(**options: Any) -> Any:
        return spec.load(folder, block=2, **{"dtype": torch.bfloat16, **options})

    assert held['dtype="float32"'] == bytes_of(load(dtype=torch.float32))
    for kind in ("int8", "fp8"):
        small = load(quantize=kind)
        assert held[f'quantize="{kind}"'] == bytes_of(small)
        sizes = [bytes_of(block) for block in small.loaded_blocks()]
        layers = bytes_of(small) - sum(sizes) + max(map(sum, pairwise(sizes)))
        assert held['quantize="int8", offload="layers"'] == layers
    monkeypatch.setattr(plan_module, "find_spec", lambda name: True)
    four = spec.plan(folder, block=2, dtype=torch.bfloat16).by_option
    [(option, size)] = four.items() - held.items()
    assert "load_in_4bit" in option and size < held['quantize="int8"']


@pytest.fixture
def hub(tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    folder = Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))
    return FakeHub(folder, tmp_path / "cache", monkeypatch)


def test_what_is_planned_is_what_is_downloaded(hub: FakeHub) -> None:
    plan = FluxBackbone.plan_loading(REPO, block=1)
    assert hub.downloaded and not [n for n in hub.downloaded if n.endswith(".safetensors")]
    assert plan.download
    FluxBackbone.from_pretrained(REPO, block=1)
    weights = [name for name in hub.downloaded if name.endswith(".safetensors")]
    assert sorted(weights) == sorted(plan.download)
    assert plan.download == {n: (hub.folder / n).stat().st_size for n in weights}
    assert len(weights) < len(list(hub.folder.glob("[tv]*/diffusion*.safetensors")))
    assert FluxBackbone.plan_loading(REPO, block=1).download == {}


def test_text_encoders_are_counted_once_and_without_their_variants(hub: FakeHub) -> None:
    files = list(hub.folder.glob("text_encoder*/model*.safetensors"))
    expected = sum(path.stat().st_size for path in files)
    for path in files:
        shutil.copy(path, path.with_name("model.fp16.safetensors"))
    assert FluxBackbone.plan_loading(REPO).prompt_download == expected > 0


def test_a_gated_repository_is_planned_from_its_architecture(hub: FakeHub) -> None:
    hub.download_refusal = http_error("GatedRepoError", 403)
    architecture = BY_NAME["flux.1-dev"].architecture
    plan = FluxBackbone.plan_loading(REPO, block=28, architecture=architecture)
    assert re.search("architecture alone.*accept the licence", plan.source)
    assert plan.download is None
    with pytest.raises(GatedRepositoryError):
        FluxBackbone.plan_loading(REPO)


def test_a_repository_without_safetensors_is_refused_before_the_download(hub: FakeHub) -> None:
    for path in hub.folder.glob("transformer/*.safetensors*"):
        path.unlink()
    (hub.folder / "transformer/diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="can run code"):
        FluxBackbone.plan_loading(REPO, architecture=BY_NAME["flux.1-dev"].architecture)


def test_a_folder_that_lacks_a_needed_shard_is_refused(hub: FakeHub) -> None:
    plan_before = FluxBackbone.plan_loading(hub.folder, block=0)
    first = Checkpoint(hub.folder).shards("transformer")["x_embedder.weight"]
    (hub.folder / first).unlink()
    assert plan_before.download == {}
    with pytest.raises(CheckpointError, match=Path(first).name):
        FluxBackbone.plan_loading(hub.folder, block=0)


def test_blocks_that_do_not_exist_are_refused(tiny_checkpoint: Checkpoints) -> None:
    with pytest.raises(InvalidArgumentError, match="block"):
        FluxBackbone.plan_loading(tiny_checkpoint("flux"), block=5)
