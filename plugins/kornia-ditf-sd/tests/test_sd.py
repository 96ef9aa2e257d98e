"""DIFT descriptors against DIFT's own arithmetic, written out module by module."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from kornia_ditf_sd.loading import load_dift
from tiny_sd import image, made
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import CaptureError
from kornia_ditf.noise import draw_image_noise
from kornia_ditf.testing import check_descriptor
from kornia_ditf.utils.hooks import capture_output

Give = Callable[[str], Path]
FAMILY = pytest.mark.parametrize("family", ["sd1.5", "sd2.1", "sdxl"])


@cache
def original(path: Path) -> Original:
    """Give a whole model; not to be changed."""
    return Original(path)


class Original:
    """A whole model as diffusers loads it, and DIFT's loop through the modules of its UNet."""

    def __init__(self, path: Path) -> None:
        name = json.loads((path / "model_index.json").read_text())["_class_name"]
        pipeline_class: Any = getattr(diffusers, name)
        options: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
        if "XL" not in name:
            options |= {"safety_checker": None, "requires_safety_checker": False}
        self.pipeline = pipeline_class.from_pretrained(path, **options)
        self.unet = self.pipeline.unet

    @torch.no_grad()
    def features(
        self, pixels: Tensor, *, up: int, t: int, ensemble: int, prompt: str = "", seed: int = 0
    ) -> Tensor:
        """As DIFT's SDFeaturizer.forward, with the mode of the posterior and our noise."""
        batch = pixels.repeat(ensemble, 1, 1, 1) * 2 - 1
        vae = self.pipeline.vae
        latents = vae.encode(batch).latent_dist.mode() * vae.config.scaling_factor
        [noise] = draw_image_noise(pixels, tuple(latents.shape), seed=seed)
        scheduler = diffusers.DDIMScheduler.from_config(self.pipeline.scheduler.config)
        noisy = scheduler.add_noise(latents, noise, torch.tensor([t]))
        encoded = self.pipeline.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        text = encoded[0].repeat(ensemble, 1, 1)
        pooled = encoded[2].repeat(ensemble, 1) if len(encoded) == 4 else None
        return self.up_block(noisy, t, text, pooled, up, pixels.shape[2:]).mean(0, keepdim=True)

    def up_block(
        self, sample: Tensor, t: int, text: Tensor, pooled: Tensor | None, up: int, size: Any
    ) -> Tensor:
        unet = self.unet
        time = unet.time_embedding(unet.time_proj(torch.full((len(sample),), t)))
        if pooled is not None:
            ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
            ids = unet.add_time_proj(ids.repeat(len(sample))).reshape(len(sample), -1)
            time = time + unet.add_embedding(torch.cat([pooled, ids], -1))
        uneven = any(side % 2**unet.num_upsamplers for side in sample.shape[2:])
        hidden = unet.conv_in(sample)
        skips: tuple[Tensor, ...] = (hidden,)
        for block in unet.down_blocks:
            hidden, more = self.run(block, text, hidden_states=hidden, temb=time)
            skips += more
        hidden = unet.mid_block(hidden, time, encoder_hidden_states=text)
        for number, block in enumerate(unet.up_blocks[: up + 1]):
            taken, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
            last = number == len(unet.up_blocks) - 1
            hidden = self.run(
                block,
                text,
                hidden_states=hidden,
                temb=time,
                res_hidden_states_tuple=taken,
                upsample_size=skips[-1].shape[2:] if uneven and not last else None,
            )
        return hidden

    @staticmethod
    def run(block: Any, text: Tensor, **inputs: Any) -> Any:
        if getattr(block, "has_cross_attention", False):
            inputs["encoder_hidden_states"] = text
        return block(**inputs)


@FAMILY
def test_every_up_block_gives_what_dift_gives(family: str, folder: Give) -> None:
    whole = original(folder(family))
    for up in range(len(whole.unet.up_blocks)):
        found = load_dift(folder(family), up_ft_index=up, ensemble=3)(image(), "a photo of a cat")
        expected = whole.features(image(), up=up, t=261, ensemble=3, prompt="a photo of a cat")
        torch.testing.assert_close(found.data, expected, rtol=0, atol=1e-5)
        assert expected.abs().mean() > 0.05  # or the tolerance would mean nothing


@pytest.mark.parametrize("size", [(72, 104), (40, 64)])
@FAMILY
def test_sides_that_do_not_halve_are_treated_as_dift_does(
    family: str, size: tuple[int, int], folder: Give
) -> None:
    found = made(folder(family), up_ft_index=2, ensemble=1, size=size)(image(*size))
    expected = original(folder(family)).features(image(*size), up=2, t=261, ensemble=1)
    torch.testing.assert_close(found.data, expected, rtol=0, atol=1e-5)
    assert found.grid == (size[0] // 8, size[1] // 8)


@FAMILY
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its scheduler
def test_the_unet_is_told_what_its_pipeline_tells_it(
    family: str, folder: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    whole = original(folder(family))
    hook = whole.unet.register_forward_pre_hook(
        lambda _, args, kwargs: told.append(kwargs), with_kwargs=True
    )
    whole.pipeline.set_progress_bar_config(disable=True)
    whole.pipeline(
        "a cat", height=64, width=128, num_inference_steps=1, guidance_scale=1, output_type="latent"
    )
    hook.remove()

    def capture(unet: Any, block: Any, inputs: dict[str, Any], **named: str) -> Tensor:
        told.append(inputs)
        return capture_output(unet, block, inputs, **named)

    monkeypatch.setattr("kornia_ditf_sd.descriptor.capture_output", capture)
    made(folder(family), ensemble=1)(image(64, 128), "a cat")
    theirs, ours = told
    assert torch.equal(theirs["encoder_hidden_states"], ours["encoder_hidden_states"])
    added = theirs["added_cond_kwargs"] or {}
    assert set(added) == set(ours.get("added_cond_kwargs", ()))
    for name, value in added.items():
        assert torch.equal(value, ours["added_cond_kwargs"][name])


@FAMILY
@pytest.mark.parametrize("t", [0, 51, 999])
def test_every_timestep_gives_what_dift_gives(family: str, t: int, folder: Give) -> None:
    found = made(folder(family), timestep=t, ensemble=2, seed=5)(image())
    expected = original(folder(family)).features(image(), up=1, t=t, ensemble=2, seed=5)
    torch.testing.assert_close(found.data, expected, rtol=0, atol=1e-5)


@FAMILY
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_it_keeps_every_rule(family: str, dtype: str, tolerance: float, folder: Give) -> None:
    descriptor = kd.create_descriptor(
        family, source=folder(family), dtype=dtype, ensemble=2, size=None, long_side=None
    )
    check_descriptor(descriptor, tolerance=tolerance)


@FAMILY
def test_a_batch_gives_what_its_images_give(family: str, folder: Give) -> None:
    descriptor = made(folder(family), ensemble=2)
    batch, prompts = image(64, 64, batch=3), ["a cat", "a dog", ""]
    together = descriptor(batch, prompts).data
    alone = [descriptor(one, prompt).data for one, prompt in zip(batch, prompts, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert torch.equal(together, descriptor(batch, prompts).data)
    assert not torch.allclose(alone[0], descriptor(batch[0], "a dog").data)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_pieces_give_what_the_whole_gives(rows: int, folder: Give) -> None:
    batch = image(64, 64, batch=2)
    whole = made(folder("sd2.1"), ensemble=3)(batch)
    pieces = made(folder("sd2.1"), ensemble=3, rows_per_forward=rows)(batch)
    torch.testing.assert_close(whole.data, pieces.data, rtol=0, atol=1e-5)


def test_memory_that_does_not_suffice_makes_smaller_pieces(
    folder: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = made(folder("sd2.1"), ensemble=4)
    whole = descriptor(image())
    tried = []

    def capture(unet: Any, block: Any, inputs: Any, **named: str) -> Tensor:
        tried.append(len(inputs["sample"]))
        if tried[-1] > 1:
            raise torch.OutOfMemoryError
        return capture_output(unet, block, inputs, **named)

    monkeypatch.setattr("kornia_ditf_sd.descriptor.capture_output", capture)
    torch.testing.assert_close(descriptor(image()).data, whole.data, rtol=0, atol=1e-5)
    assert tried == [4, 2, 1, 1, 1, 1]


def test_an_ensemble_is_the_mean_of_its_draws(folder: Give) -> None:
    one, two, three = (made(folder("sd1.5"), ensemble=n)(image()).data for n in (1, 2, 3))
    second, third = 2 * two - one, 3 * three - 2 * two
    assert not torch.allclose(one, second, atol=1e-2)
    torch.testing.assert_close(three, (one + second + third) / 3, rtol=0, atol=1e-5)


def test_a_posterior_sample_is_seeded_and_is_not_the_mode(folder: Give) -> None:
    first, again, other, mode = (
        made(folder("sd1.5"), ensemble=1, posterior=posterior, seed=seed)(image()).data
        for posterior, seed in (("sample", 0), ("sample", 0), ("sample", 1), ("mode", 0))
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, mode) and not torch.allclose(first, other)


def test_images_are_squashed_or_keep_their_aspect(folder: Give) -> None:
    squashed = made(folder("sd2.1"), ensemble=1, size=(64, 64))(image(48, 200))
    assert squashed.frame == kd.Frame(image_size=(48, 200), model_size=(64, 64))
    assert squashed.grid == (4, 4)
    fitted = made(folder("sd2.1"), ensemble=1, long_side=256)(image(48, 100))
    assert fitted.frame.model_size == (128, 256) and fitted.grid == (8, 16)
    half = made(folder("sdxl"), ensemble=1, long_side=160)(image(48, 100))
    assert half.frame.model_size == (64, 160) and half.grid == (8, 20)


@FAMILY
def test_the_forward_stops_after_the_block_and_leaves_no_hook(family: str, folder: Give) -> None:
    whole = Original(folder(family)).unet
    descriptor = made(folder(family), ensemble=1)
    descriptor.unet = whole  # whose later blocks are there to run
    passed = []
    for number, block in enumerate(whole.up_blocks):
        block.register_forward_pre_hook(lambda *_, number=number: passed.append(number))
    before = {name: len(m._forward_hooks) for name, m in whole.named_modules()}
    descriptor(image())
    assert passed == [0, 1]
    with pytest.raises(TypeError):
        capture_output(whole, whole.up_blocks[1], {"no_such": 1}, name="up block 1")
    assert before == {name: len(m._forward_hooks) for name, m in whole.named_modules()}


def test_a_unet_that_skips_the_block_is_an_error(folder: Give) -> None:
    descriptor = made(folder("sd1.5"), ensemble=1)
    descriptor.unet = Original(folder("sd1.5")).unet
    descriptor.unet.forward = lambda **_: None
    with pytest.raises(CaptureError, match="never reached up block 1"):
        descriptor(image())


def test_only_what_the_block_needs_is_held(folder: Give) -> None:
    descriptor = load_dift(folder("sd1.5"), up_ft_index=1)
    held = sum(p.numel() for p in descriptor.unet.parameters())
    whole = original(folder("sd1.5")).unet
    later = [*whole.up_blocks[2:], whole.conv_norm_out, whole.conv_out]
    left_out = sum(p.numel() for module in later for p in module.parameters())
    assert left_out > 0
    assert held == sum(p.numel() for p in whole.parameters()) - left_out
    assert not list(descriptor.vae.decoder.parameters())


@FAMILY
def test_a_prompt_met_before_needs_no_text_encoder(
    family: str, folder: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dift(folder(family), ensemble=1)(image(), "a cat").data
    pipeline = json.loads((folder(family) / "model_index.json").read_text())["_class_name"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the text encoders were loaded")

    monkeypatch.setattr(f"diffusers.{pipeline}.from_pretrained", refuse)
    assert torch.equal(load_dift(folder(family), ensemble=1)(image(), "a cat").data, first)


@FAMILY
def test_embedding_a_prompt_says_nothing_and_loads_no_unet(
    family: str, folder: Give, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = load_dift(folder(family), ensemble=1)
    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", None)
    monkeypatch.setattr("diffusers.AutoencoderKL.from_pretrained", None)
    descriptor(image(), "a cat")
    assert capfd.readouterr() == ("", "")


def test_an_identity_names_weights_settings_and_dtype(folder: Give) -> None:
    named = [
        load_dift(folder(family), **options).identity
        for family, options in (
            ("sd1.5", {}),
            ("sd2.1", {}),
            ("sd1.5", {"timestep": 1}),
            ("sd1.5", {"dtype": torch.bfloat16}),
        )
    ]
    assert len(set(named)) == len(named)
    assert load_dift(folder("sd1.5"), rows_per_forward=2).identity == named[0]
