"""Video models on clips: a map per frame, equal to a direct call of the transformer."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import diffusers
import pytest
import torch
from kornia_ditf_zoo.catalogue import SPECS
from pipeline_calls import calls_of, compare_calls
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

import kornia_ditf as kd
from kornia_ditf.cli.app import app
from kornia_ditf.noise import draw_image_noise

SPEC = {spec.name: spec for spec in SPECS}
Checkpoints = Callable[[str], Path]
VIDEO = (
    "cogvideox-2b",
    "cogvideox-5b",
    "cogvideox1.5-5b",
    "hunyuanvideo",
    "hunyuanvideo-1.5",
    "ltx-2",
    "ltx-video",
    "mochi-1",
    "wan2.1-1.3b",
    "wan2.2-5b",
)


@pytest.fixture
def load(tiny_zoo: Checkpoints) -> Callable[[str], kd.VideoBackbone]:
    def load(name: str) -> kd.VideoBackbone:
        backbone = SPEC[name].load(tiny_zoo(name))
        assert isinstance(backbone, kd.VideoBackbone)
        return backbone

    return load


Load = Callable[[str], kd.VideoBackbone]


def clip(frames: int) -> Tensor:
    """Make frames (T, 3, 64, 96) of texture that moves."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(3, 64, 96 + 4 * frames, generator=generator)
    return torch.stack([wide[:, :, 4 * t : 4 * t + 96] for t in range(frames)])


def config(**changes: Any) -> kd.DiTFConfig:
    return kd.DiTFConfig(**{"block": 1, "timestep": 0, "long_side": None, **changes})


@pytest.mark.parametrize("name", VIDEO)
@torch.no_grad()
def test_a_clip_is_told_to_the_transformer_as_its_pipeline_tells_it(
    name: str, load: Load, tiny_zoo: Checkpoints
) -> None:
    backbone = load(name)
    generator = torch.Generator().manual_seed(0)
    sides = (4 * backbone.patch_size, 6 * backbone.patch_size)
    latent = torch.randn(1, backbone.latent_channels, 3, *sides, generator=generator)
    frames = 1 + 2 * backbone.frames_per_latent
    calls = calls_of(backbone, SPEC[name].pipeline, tiny_zoo(name), latent, num_frames=frames)
    compare_calls(*calls)


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi's own
@pytest.mark.parametrize("name", VIDEO)
@torch.no_grad()
def test_the_maps_of_frames_are_what_a_direct_call_of_the_transformer_normalises(
    name: str, load: Load, tiny_zoo: Checkpoints
) -> None:
    backbone, frames = load(name), clip(3)
    descriptor = kd.DiTF(backbone, config(treatment="raw"))
    maps = list(kd.describe_video(descriptor, frames))

    # Each frame is shown for as long as a latent frame lasts, the first one once.
    times = backbone.frames_per_latent * backbone.latents_per_token
    shown = torch.cat([frames[:1], frames[1:].repeat_interleave(times, 0)])
    whole = shown.transpose(0, 1)[None]
    latent = backbone.encode(whole)
    noise = draw_image_noise(whole, (1, *latent.shape[1:]), seed=0)[:, 0]
    noisy = backbone.schedule.mix(latent, noise, 0)
    assert latent.shape[2] == 1 + 2 * backbone.latents_per_token and len(maps) == 3
    kind: Any = getattr(diffusers, backbone.transformer_class)
    transformer = kind.from_pretrained(tiny_zoo(name), subfolder="transformer").eval()
    stream, seen = backbone.streams[0], []
    norm = transformer.get_submodule(f"{stream.blocks}.1.{stream.norm}")
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    transformer(**backbone.transformer_inputs(noisy, 0, backbone.condition([""])))
    for described, tokens in zip(maps, seen[0].unflatten(1, (3, -1))[0], strict=True):
        torch.testing.assert_close(described.tokens[0], tokens, rtol=0, atol=1e-4)


@torch.no_grad()
def test_latents_of_clips_are_normalised_as_the_pipelines_do(load: Load) -> None:
    frames = clip(5).transpose(0, 1)[None]
    wan, cogvideox = load("wan2.1-1.3b"), load("cogvideox-2b")
    vae: Any = wan.vae
    raw = vae.encode(2 * frames - 1).latent_dist.mode()
    mean, std = (
        torch.tensor(getattr(vae.config, name)).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    torch.testing.assert_close(wan.encode(frames), (raw - mean) / std)
    vae = cogvideox.vae
    raw = vae.encode(2 * frames - 1).latent_dist.mode()
    torch.testing.assert_close(cogvideox.encode(frames), raw * vae.config.scaling_factor)


@torch.no_grad()
def test_a_clip_of_one_frame_is_described_as_an_image(load: Load) -> None:
    descriptor = kd.DiTF(load("wan2.1-1.3b"), config(timestep=250, massive_channels=()))
    (described,) = kd.describe_video(descriptor, clip(1))
    torch.testing.assert_close(described.data, descriptor(clip(1)).data, rtol=0, atol=1e-4)


@torch.no_grad()
def test_frames_of_a_latent_frame_may_share_its_map(load: Load) -> None:
    backbone = load("wan2.1-1.3b")
    descriptor = kd.DiTF(backbone, config(massive_channels=()))
    maps = list(kd.describe_video(descriptor, clip(6), every_frame=False))
    equal = [torch.equal(a.data, b.data) for a, b in pairwise(maps)]
    assert backbone.frames_per_latent == 4
    assert equal == [False, True, True, True, False]  # 1 frame, then 4, then what is left


@torch.no_grad()
def test_windows_of_odd_sized_frames_are_described_one_after_another(load: Load) -> None:
    frames = torch.rand(5, 3, 37, 51, generator=torch.Generator().manual_seed(0))
    descriptor = kd.DiTF(load("cogvideox-5b"), config(long_side=64, ensemble=2, timestep=250))
    maps = list(kd.describe_video(descriptor, frames, window=3))
    first = list(kd.describe_video(descriptor, frames[:3], window=3))
    assert len(maps) == 5 and maps[4].frame.image_size == (37, 51)
    for described, alone in zip(maps, first, strict=False):
        torch.testing.assert_close(described.data, alone.data)
    assert descriptor.massive_channels() is None  # those found are the video's alone


@torch.no_grad()
def test_several_blocks_and_timesteps_see_clips_too(load: Load) -> None:
    backbone, frames = load("wan2.1-1.3b"), clip(2)
    given = {"massive_channels": (), "ensemble": 1}
    several = kd.DiTF(backbone, config(timesteps=(0, 300), **given))
    maps = list(kd.describe_video(several, frames))
    alone = [
        list(kd.describe_video(kd.DiTF(backbone, config(timestep=t, **given)), frames))
        for t in (0, 300)
    ]
    for number, described in enumerate(maps):
        expected = (alone[0][number].data + alone[1][number].data) / 2
        torch.testing.assert_close(described.data, expected, rtol=0, atol=1e-5)


def test_extract_stores_the_maps_of_windows_and_says_how_time_was_treated(
    tiny_zoo: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))
    video, out = tmp_path / "clip.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for frame in clip(5):
        writer.write((255 * frame).permute(1, 2, 0).byte().numpy())
    writer.release()
    folder = tiny_zoo("wan2.1-1.3b")
    words = ["extract", str(video), "-b", str(folder), "--long-side", "64", "--block", "1"]
    words += ["--option", "massive_channels=[]", "--window", "3", "--out", str(out)]
    first = CliRunner().invoke(app, [*words, "--frames", "4"])
    assert first.exit_code == 0, first.output
    assert "of 3 frames (--window), each shown for the 4 that a latent frame covers" in first.stdout
    done = CliRunner().invoke(app, words)
    # The second window had one frame, and has two now: it is not the same clip.
    assert done.exit_code == 5 and "other settings (clip)" in done.stderr
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
    ditf = kd.create_ditf(folder, long_side=64, block=1, massive_channels=())
    maps = list(kd.describe_video(ditf, video, window=3))
    for number, described in enumerate(maps):
        with safe_open(out / f"clip-{number:06d}.safetensors", "pt") as file:
            about = {name: json.loads(value) for name, value in file.metadata().items()}
            torch.testing.assert_close(file.get_tensor("descriptors"), described.data[0])
        assert about["clip"] == ([0, 1, 2] if number < 3 else [3, 4])
    shared = CliRunner().invoke(app, [*words, "--share", "--overwrite"])
    assert "up to 4 of which share a latent frame's descriptors" in shared.stdout
