"""The rules about what a backbone captures at its blocks, and where it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from kornia_ditf.backbones.diffusers_backbone import DiffusersBackbone
from kornia_ditf.backbones.trimmed import TrimmedPromptBackbone
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.weights import find_class, without_deprecations, without_progress_bars
from kornia_ditf.tap import BlockStream, first_tensor
from kornia_ditf.testing.loaded import GRID, TIMESTEP, Loaded, numbered_blocks
from kornia_ditf.testing.rules import (
    NotApplicable,
    expect,
    expect_close,
    expect_refusal,
    left_as_it_was,
)
from kornia_ditf.treatments import modulate
from kornia_ditf.types import Tap


def taps_have_their_shapes(subject: Loaded) -> None:
    """Every block gives x (B, N, D), shift and scale (B, D) or (B, N, D), finite, on the grid."""
    backbone = subject.backbone
    latent = subject.latents(2)
    expect(
        latent.ndim == 4 and len(latent) == 2,
        f"2 images were encoded to the shape {tuple(latent.shape)}",
        "encode gives latents (B, C, h, w)",
    )
    numbers = range(backbone.blocks)
    taps = backbone.taps(latent, TIMESTEP, subject.conditioning(2), blocks=numbers)
    expect(
        set(taps) == set(numbers),
        f"of blocks 0 to {subject.last}, taps gave {sorted(taps)}",
        "give one tap per block that is asked for, by its number",
    )
    rows, columns = GRID
    for block, tap in taps.items():
        expect(
            tap.grid == GRID and tap.x.shape == (2, rows * columns, backbone.width),
            f"block {block}: x {tuple(tap.x.shape)} on the grid {tap.grid}; expected "
            f"{(2, rows * columns, backbone.width)} on {GRID}",
            "grid is (rows, columns) of the image's tokens; text tokens are not in x",
        )
        expect(
            bool(tap.x.isfinite().all()) and bool(tap.x.std() > 0),
            f"block {block}: x is not finite, or all the same",
            "randomise what is zero in the tiny model (tiny.save_transformer does)",
        )
        for name, value in (("shift", tap.shift), ("scale", tap.scale)):
            shapes = ((2, backbone.width), (2, 1, backbone.width), tuple(tap.x.shape))
            expect(
                value is None or (tuple(value.shape) in shapes and bool(value.std() > 0)),
                f"block {block}: {name} is {None if value is None else tuple(value.shape)}, or "
                "the same in every channel",
                "a modulation is (B, D) or (B, N, D); randomise what is zero in the tiny model",
            )


def tokens_stand_where_they_belong(subject: Loaded) -> None:
    """Token (row, column) of x comes from that place of the latent."""
    latent = subject.latents(1)
    rows, columns = GRID
    height, width = latent.shape[2] // rows, latent.shape[3] // columns
    plain = subject.tap(latent, 0).x
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (1, 2)):
        changed = latent.clone()
        patch = changed[:, :, row * height : (row + 1) * height, column * width :][..., :width]
        patch += 3
        moved = (subject.tap(changed, 0).x - plain).float().norm(dim=-1)[0]
        most = divmod(int(moved.argmax()), columns)
        expect(
            most == (row, column),
            f"the latent changed at token (row, column) {(row, column)}, x most at {most}",
            "tokens run row by row; check the packing in transformer_inputs, `tokens` of the "
            "BlockStream, and the grid",
        )


def modulation_is_what_the_block_applies(subject: Loaded) -> None:
    """In an undisturbed forward, norms receive x and attentions what the tap modulates to."""
    if not isinstance(subject.backbone, DiffusersBackbone):
        _some_module_receives_the_modulated_stream(subject)
        return
    backbone = subject.backbone
    undisturbed = subject.again
    assert isinstance(undisturbed, DiffusersBackbone)
    # Whole: the head was never loaded, and an undisturbed forward needs it.
    whole = _whole_transformer(subject, backbone)
    latent = subject.latents(2)
    seen: dict[tuple[int, str], Tensor] = {}
    device = next(backbone.transformer.parameters()).device
    conditioning = subject.conditioning(2)
    if isinstance(backbone, TrimmedPromptBackbone):
        ((_, conditioning),) = backbone.trim(conditioning)
    with patch.dict(undisturbed._modules, transformer=whole):
        for number, block, stream in numbered_blocks(undisturbed):
            for part, take in (("norm", stream.norm_input), ("attention", first_tensor)):
                module = block.get_submodule(getattr(stream, part))
                note = partial(_keep, seen, (number, part), take)
                module.register_forward_pre_hook(note, with_kwargs=True)
        inputs = undisturbed.transformer_inputs(
            latent.to(device, subject.dtype), TIMESTEP, conditioning.to(device, subject.dtype)
        )
        whole(**inputs)
    taps = backbone.taps(latent, TIMESTEP, subject.conditioning(2), blocks=range(backbone.blocks))
    advice = (
        "norm, attention, modulation or tokens of the BlockStream name the wrong place, or taps "
        "changes what the model computes"
    )
    for number, _, stream in numbered_blocks(backbone):
        tap = taps[number]
        normed, attended = (
            _image_part(seen[number, part], tap, stream) for part in ("norm", "attention")
        )
        expect_close(tap.x, normed, f"block {number}: x, and what the norm received", advice)
        expect_close(
            modulate(tap),
            attended,
            f"block {number}: the tap modulated, and what the attention received",
            advice,
            tolerance=8 * torch.finfo(subject.dtype).eps,
        )


def forward_stops_at_the_block(subject: Loaded) -> None:
    """The attention of the block that is asked for never runs, nor does any later block."""
    if not isinstance(subject.backbone, DiffusersBackbone):
        _more_runs_for_later_blocks(subject)
        return
    backbone = subject.backbone
    numbered = list(numbered_blocks(backbone))
    middle = len(numbered) // 2
    _, block, stream = numbered[middle]
    attention = block.get_submodule(stream.attention)
    later = {each: f"block {number}" for number, each, _ in numbered[middle + 1 :]}
    ran: list[str] = []
    with (
        attention.register_forward_hook(lambda *_: ran.append("its own attention")),
        _watching(later, lambda module, *_: ran.append(later[module])),
    ):
        subject.tap(subject.latents(1), middle)
    expect(
        not ran,
        f"when block {middle} was asked for, there ran: {', '.join(dict.fromkeys(ran))}",
        "leave taps to DiffusersBackbone, or end the forward at the attention by an exception",
    )


def nothing_is_left_behind(subject: Loaded) -> None:
    """No hook, mode, weight or global setting is changed, after success or failure."""
    latent = subject.latents(1)
    subject.tap(latent)
    with left_as_it_was(subject.backbone):
        subject.tap(latent)
    with left_as_it_was(subject.backbone):
        expect_refusal("NaN", subject.tap, torch.full_like(latent, float("nan")))


def _some_module_receives_the_modulated_stream(subject: Loaded) -> None:
    """Check a backbone whose blocks are not declared: what a block reads is seen by its modules."""
    backbone, latent = subject.backbone, subject.latents(2)
    if subject.last == 0:
        raise NotApplicable
    received: list[Tensor] = []

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        received.extend(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))

    with _watching(backbone.modules(), note):
        # The last block too, so that the first one's attention runs, wherever the forward stops.
        taps = backbone.taps(latent, TIMESTEP, subject.conditioning(2), blocks=[0, subject.last])
    expected = modulate(taps[0]).float()
    limit = 8 * torch.finfo(subject.dtype).eps * expected.abs().max()
    tokens = expected.shape[1]
    found = any(
        value.ndim == 3
        and value.shape[2] == expected.shape[2]
        and any(
            part.shape == expected.shape and (part.float() - expected).abs().max() <= limit
            for part in (value[:, :tokens], value[:, -tokens:])
        )
        for value in received
    )
    expect(
        found,
        "no module received (1 + scale) * norm(x) + shift of block 0's tap",
        "give the shift and scale that the block itself computes, and its own norm",
    )


def _more_runs_for_later_blocks(subject: Loaded) -> None:
    backbone, latent = subject.backbone, subject.latents(1)
    if subject.last == 0:
        raise NotApplicable
    calls: list[int] = []
    for block in (0, subject.last):
        ran: list[str] = []
        with _watching(backbone.modules(), lambda *_, ran=ran: ran.append("")):
            subject.tap(latent, block)
        calls.append(len(ran))
    expect(
        calls[0] < calls[1],
        f"for block 0 as many modules ran ({calls[0]}) as for block {subject.last} ({calls[1]})",
        "end the forward at the block that is asked for, as kornia_ditf.tap.capture_blocks does",
    )


@contextmanager
def _watching(modules: Iterable[nn.Module], note: Callable[..., None]) -> Iterator[None]:
    with ExitStack() as hooks:
        for each in modules:
            hooks.enter_context(each.register_forward_pre_hook(note, with_kwargs=True))
        yield


def _whole_transformer(subject: Loaded, backbone: DiffusersBackbone) -> nn.Module:
    transformer_class = find_class(backbone.transformer_class)
    folder = backbone.transformer_folder(Checkpoint(subject.source), subject.options)
    with without_progress_bars(), without_deprecations():
        whole: nn.Module = transformer_class.from_pretrained(
            subject.source, subfolder=folder, dtype=subject.dtype
        )
    return whole.eval()


def _keep(
    seen: dict[tuple[int, str], Tensor],
    key: tuple[int, str],
    take: Callable[[Any, Any], Tensor],
    _: nn.Module,
    args: Any,
    kwargs: Any,
) -> None:
    seen.setdefault(key, take(args, kwargs))


def _image_part(stream: Tensor, tap: Tap, declared: BlockStream) -> Tensor:
    tokens = tap.grid[0] * tap.grid[1]
    return stream[:, -tokens:] if declared.tokens == "last" else stream[:, :tokens]
