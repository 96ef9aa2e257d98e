"""The rules about what features depend on, and what not."""

from __future__ import annotations

import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.testing.loaded import TIMESTEP, Loaded
from kornia_ditf.testing.rules import expect, expect_close, expect_refusal, rounding

_PROMPTS = ("a", 'a longer "text"')
"""Of two lengths, and with quotes: some models read nothing else."""


def results_repeat(subject: Loaded) -> None:
    """The same input has the same taps, whatever torch's seed, and after loading again."""
    latent, conditioning = subject.latents(1), subject.conditioning(1)
    first = subject.tap(latent).x
    advice = "draw from a torch.Generator with a seed, and keep no state between calls"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        subject.encoded.clear()
        expect_close(subject.latents(1), latent, "latents under another seed of torch", advice)
        expect_close(subject.tap(latent).x, first, "x under another seed of torch", advice)
        again = subject.again.tap(latent, TIMESTEP, conditioning, block=subject.last).x
    expect_close(again, first, "x of the backbone loaded twice", advice)


def images_do_not_depend_on_their_batch(subject: Loaded) -> None:
    """An image has the same latent and the same tap alone and among others."""
    images = subject.images(3)
    advice = "nothing may be averaged or drawn over the batch"
    expect_close(
        subject.backbone.encode(images)[1:2],
        subject.backbone.encode(images[1:2]),
        "the second of three latents, and alone",
        advice,
        tolerance=1e-4,
    )
    latent = subject.latents(3)
    expect_close(
        subject.tap(latent).x[1:2],
        subject.tap(latent[1:2]).x,
        "x of the second of three, and alone",
        advice,
        tolerance=rounding(subject.dtype),
    )


def every_shape_of_image_is_taken(subject: Loaded) -> None:
    """Wide, tall and square images give their grids, and leave no trace in the next one's."""
    first = subject.tap(subject.latents(1)).x
    for grid in ((2, 5), (5, 2), (4, 4)):
        tap = subject.tap(subject.latents(1, grid))
        expect(
            tap.grid == grid and tap.x.shape[1] == grid[0] * grid[1],
            f"an image of {grid[0]} x {grid[1]} tokens gave the grid {tap.grid} and "
            f"{tap.x.shape[1]} tokens",
            "work positions and packing out from the latent's own height and width",
        )
    again = subject.tap(subject.latents(1)).x
    expect_close(
        again, first, "x before and after images of other sizes", "keep no state between calls"
    )


def prompts_are_rows_of_their_own(subject: Loaded) -> None:
    """Prompts give a row each, whatever their length; where they are taken, features change."""
    backbone = subject.backbone
    latent = subject.latents(2)
    try:
        conditioning = backbone.condition(list(_PROMPTS))
    except InvalidArgumentError:
        return  # it takes no prompts, or names of classes
    for index, prompt in enumerate(_PROMPTS):
        alone = backbone.condition([prompt])
        for name, value in alone.tensors.items():
            expect_close(
                conditioning[name][index : index + 1],
                value,
                f"{name} of prompt {index}, among others and alone",
                "pad every prompt to one length, so that rows can be joined",
            )
    empty = subject.tap(latent).x
    spoken = backbone.tap(latent, TIMESTEP, conditioning, block=subject.last).x
    expect(
        not torch.equal(empty, spoken),
        "x is the same for the empty prompt and for others",
        "hand the conditioning on in transformer_inputs; or refuse prompts with an "
        "InvalidArgumentError",
    )


def time_reaches_the_block(subject: Loaded) -> None:
    """The modulation changes with the timestep; the schedule starts clean and refuses the rest."""
    latent, schedule = subject.latents(1), subject.backbone.schedule
    early, late = (subject.tap(latent, timestep=timestep) for timestep in (100, 800))
    expect(
        any(
            not torch.equal(getattr(early, name), getattr(late, name))
            for name in ("x", "shift", "scale")
            if getattr(early, name) is not None
        ),
        "timesteps 100 and 800 give the same taps",
        "hand `timestep` on in transformer_inputs, in the model's own convention",
    )
    signals, spreads = zip(*(schedule.weights(t) for t in (0, 250, 500, 750, 999)), strict=True)
    expect(
        list(signals) == sorted(signals, reverse=True) and list(spreads) == sorted(spreads),
        f"over timesteps 0 to 999 the latent's share is {signals}, the noise's {spreads}",
        "0 is clean and 1000 is pure noise; a model with reversed time reverses it in "
        "transformer_inputs",
    )
    for wrong in (-1, 1001):
        expect_refusal(f"timestep {wrong}", schedule.check, wrong)
