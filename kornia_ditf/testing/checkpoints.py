"""The rules about a backbone's spec and files: loading, planning, dtypes, and refusing."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.registry.families import describe_checkpoint
from kornia_ditf.testing.loaded import TIMESTEP, Loaded
from kornia_ditf.testing.rules import (
    NotApplicable,
    expect,
    expect_close,
    expect_refusal,
)


def spec_describes_the_model(subject: Loaded) -> None:
    """The spec says depth, width, token size, pipeline and timestep of the model that it loads."""
    spec, backbone = subject.spec, subject.backbone
    expect(
        backbone.pixels_per_token == spec.pixels_per_token,
        f"pixels_per_token is {backbone.pixels_per_token} of the model, "
        f"{spec.pixels_per_token} of the spec",
        "correct the spec; or give the tiny model the patch and the VAE stages of the real one",
    )
    expect(
        backbone.identity is None or bool(backbone.identity),
        f"identity is {backbone.identity!r}",
        "name the weights, as Checkpoint.identity does; None keeps nothing in caches",
    )
    backbone.schedule.check(spec.timestep)
    found = spec
    if isinstance(backbone, DiffusersBackbone):
        found = describe_checkpoint(subject.folder, [spec])
    elif str(subject.source) != spec.repo:
        raise NotApplicable  # another model than the spec's
    expect(
        (found.blocks, found.width) == (backbone.blocks, backbone.width),
        f"by its configuration {found.blocks} blocks of width {found.width}, "
        f"loaded {backbone.blocks} of {backbone.width}",
        "set blocks_from and width_from, of the backbone and its spec, to the configuration's own "
        "keys",
    )


def loading_a_part_equals_loading_all(subject: Loaded) -> None:
    """Loaded up to a block, a backbone gives the same tap, holds less, and refuses later blocks."""
    latent, conditioning = subject.latents(1), subject.conditioning(1)
    blocks = sorted({0, subject.last // 2, subject.last})
    expected = subject.backbone.taps(latent, TIMESTEP, conditioning, blocks=blocks)
    held = {}
    for block in blocks:
        part = subject.again if block == subject.last else subject.load(block=block)
        found = part.tap(latent, TIMESTEP, conditioning, block=block)
        for name in ("x", "shift", "scale"):
            value, whole = getattr(found, name), getattr(expected[block], name)
            if whole is not None:
                expect_close(
                    value,
                    whole,
                    f"{name} of block {block}, loaded up to it and loaded whole",
                    "name every block list in `streams`, and in `head` only what runs after the "
                    "last block",
                )
        held[block] = sum(parameter.numel() for parameter in part.parameters())
        if block < subject.last and isinstance(part, DiffusersBackbone):
            what = f"block {block + 1} of a backbone loaded up to block {block}"
            expect_refusal(what, part.tap, latent, TIMESTEP, conditioning, block=block + 1)
    expect(
        subject.last == 0
        or held[0] < held[subject.last]
        or not isinstance(subject.backbone, DiffusersBackbone),
        f"up to block 0 it holds {held[0]} numbers, up to the last {held[subject.last]}",
        "load reads only what the block needs: hand `block` on to DiffusersBackbone",
    )


def the_plan_is_what_is_held(subject: Loaded) -> None:
    """The plan says how many bytes the transformer takes, up to a block and whole."""
    if subject.spec.plan is None:
        raise NotApplicable
    backbone = subject.diffusers
    last = subject.spec.plan(subject.source, block=subject.last, dtype=subject.dtype)
    first = subject.spec.plan(subject.source, block=0, dtype=subject.dtype)
    bytes_held = sum(v.numel() * v.itemsize for v in backbone.transformer.state_dict().values())
    expect(
        last.transformer_held == bytes_held,
        f"the plan holds {last.transformer_held} bytes, the transformer {bytes_held}",
        "plan with the class that loads (plan=YourBackbone.plan_loading)",
    )
    expect(
        first.held <= last.held,
        f"up to block 0 the plan holds {first.held} bytes, up to the last {last.held}",
        "name every block list in `streams`",
    )


def dtypes_are_kept(subject: Loaded) -> None:
    """Features come in the dtype that was asked for, near float32's, and the settings name it."""
    other = torch.float32 if subject.dtype != torch.float32 else torch.bfloat16
    latent, conditioning = subject.latents(1), subject.conditioning(1)
    tap = subject.tap(latent)
    expect(
        tap.x.dtype == subject.dtype,
        f"loaded in {subject.dtype}, x is {tap.x.dtype}",
        "hand `dtype` on to DiffusersBackbone, and cast the inputs in transformer_inputs",
    )
    reloaded = subject.load(dtype=other)
    expect_close(
        reloaded.tap(latent, TIMESTEP, conditioning, block=subject.last).x,
        tap.x,
        f"x in {other} and in {subject.dtype}",
        "the features of one dtype are wrong, or lose their precision; times and positions belong "
        "in float32",
        tolerance=0.1,
    )
    expect(
        subject.backbone.identity is None or reloaded.settings() != subject.backbone.settings(),
        f"settings() is {subject.backbone.settings()!r} in both dtypes",
        "settings() names all that changes the numbers, since caches are kept under it; call "
        "super().settings() and add to it",
    )


def wrong_input_is_refused(subject: Loaded) -> None:
    """Wrong latents, blocks and damaged files are refused with an error of ours."""
    latent = subject.latents(1)
    for what, wrong in {
        "a latent of one more channel": torch.cat([latent, latent[:, :1]], 1),
        "a latent of three axes": latent[0],
        "an empty batch": latent[:0],
    }.items():
        expect_refusal(
            what, subject.backbone.tap, wrong, TIMESTEP, subject.conditioning(1), block=0
        )
    for block in (-1, subject.last + 1):
        expect_refusal(f"block {block}", subject.tap, latent, block)
    expect_refusal("loading beyond the last block", subject.load, block=subject.last + 1)
    if not Path(subject.source).is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        damaged = shutil.copytree(subject.folder, Path(folder) / "damaged")
        shards = [*damaged.glob("transformer*/*.safetensors"), *damaged.glob("*.safetensors")]
        for shard in shards:
            shard.write_bytes(shard.read_bytes()[:-7])
        if shards:
            subject = replace(subject, source=damaged)
            expect_refusal("a checkpoint whose files are cut short", subject.load)
