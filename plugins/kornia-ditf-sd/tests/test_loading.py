"""Loading DIFT descriptors: options, errors, presets, and pipelines in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from kornia_ditf_sd.catalogue import SPECS
from kornia_ditf_sd.descriptor import DIFT, DIFTConfig
from kornia_ditf_sd.loading import load_dift
from safetensors.torch import save_file
from tiny_sd import image, loaded, made
from torch import Tensor

import kornia_ditf as kd
from kornia_ditf.errors import CheckpointError, InvalidArgumentError
from kornia_ditf.loading.latents import encode_images
from kornia_ditf.loading.memory import take_apart
from kornia_ditf.registry.families import describe_loaded

Give = Callable[[str], Path]


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"up_ft_index": 4}, "up_ft_index must lie in"),
            ({"up_ft_index": -1}, "up_ft_index must be 0 or more"),
            ({"timestep": 1000}, "integer timesteps from 0 to 999"),
            ({"timestep": 0.5}, "integer timesteps"),
            ({"ensemble": 0}, "ensemble must be 1 or more"),
            ({"posterior": "mean"}, "posterior must be"),
            ({"prompt": 3}, "prompt must be a string"),
            ({"size": (60, 64)}, "multiples of 8"),
            ({"size": 64}, r"size must be \(height, width\)"),
        ],
    )
    def test_options_are_checked(self, options: dict[str, Any], message: str, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            made(folder("sd2.1"), **options)

    def test_a_block_is_checked_before_weights_are_read(self, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match=r"up_ft_index must lie in \[0, 3\], got 4"):
            load_dift(folder("sd2.1"), up_ft_index=4)

    def test_an_unknown_option_is_named(self, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match="no option 'block'"):
            kd.create_descriptor("sd2.1", source=folder("sd2.1"), block=3)

    @pytest.mark.parametrize("prompts", [["one", "two"], [3]])
    def test_prompts_must_fit(self, prompts: Any, folder: Give) -> None:
        with pytest.raises(InvalidArgumentError, match="prompts"):
            made(folder("sd2.1"))(image(), prompts)

    def test_another_pipeline_is_refused(self, folder: Give, tmp_path: Path) -> None:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
        with pytest.raises(CheckpointError, match="holds a FluxPipeline"):
            load_dift(tmp_path)

    def test_a_missing_file_is_named(self, folder: Give, tmp_path: Path) -> None:
        index = (folder("sd2.1") / "model_index.json").read_text()
        (tmp_path / "model_index.json").write_text(index)
        with pytest.raises(CheckpointError, match="unet/config.json"):
            load_dift(tmp_path)

    def test_a_unet_that_takes_more_than_latents_is_refused(self, folder: Give) -> None:
        descriptor = load_dift(folder("sd1.5"))
        descriptor.unet.register_to_config(in_channels=9)
        with pytest.raises(InvalidArgumentError, match="inpainting"):
            DIFT(
                descriptor.unet,
                descriptor.vae,
                prompt_encoder=descriptor.prompt_encoder,
                schedule=descriptor.schedule,
                config=DIFTConfig(),
            )


class TestPresets:
    def test_all_are_installed(self) -> None:
        assert {spec.name for spec in SPECS} <= set(kd.list_descriptors())

    def test_difts_numbers_are_difts(self) -> None:
        numbers = {
            spec.name: (options["up_ft_index"], options["timestep"], options["ensemble"])
            for spec in SPECS
            if spec.source.startswith("DIFT's")
            for options in spec.load.args
        }
        assert numbers == {
            "sd2.1": (1, 261, 8),
            "sd2.1-hpatches": (2, 0, 8),
            "sd2.1-davis": (2, 51, 8),
        }

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
    def test_their_options_are_valid(self, spec: kd.DescriptorSpec) -> None:
        preset = dict(spec.load.args[0])
        assert preset.pop("source") == spec.repo
        assert ("weights" in preset) == preset.get("clean", False)
        preset.pop("weights", None)
        DIFTConfig(**preset)

    def test_a_long_side_takes_the_place_of_a_presets_size(self, folder: Give) -> None:
        def config(**options: Any) -> Any:
            return kd.create_descriptor("sd2.1", source=folder("sd2.1"), **options).config

        assert (config().size, config().long_side) == ((768, 768), None)
        assert (config(long_side=128).size, config(long_side=128).long_side) == (None, 128)
        assert config(long_side=None).size is None

    def test_a_preset_is_loaded_from_a_copy(self, folder: Give) -> None:
        descriptor = kd.create_descriptor("sd2.1-davis", source=folder("sd2.1"), ensemble=1)
        assert isinstance(descriptor, DIFT)
        assert descriptor.config == DIFTConfig(up_ft_index=2, timestep=51, ensemble=1)
        host = kd.create_descriptor("sdxl", source=folder("sdxl"), long_side=64)
        found = host(image())
        assert found.data.shape == (1, host.width, 4, 8)


class TestInMemory:
    @pytest.mark.parametrize("family", ["sd1.5", "sdxl"])
    def test_a_pipeline_gives_the_features_of_its_folder(self, family: str, folder: Give) -> None:
        path = folder(family)
        name = json.loads((path / "model_index.json").read_text())["_class_name"]
        unused: dict[str, None] = {"safety_checker": None, "feature_extractor": None}
        unused = {} if family == "sdxl" else unused
        pipe: Any = getattr(diffusers, name).from_pretrained(path, **unused)
        options: dict[str, Any] = {"ensemble": 2, "size": None, "long_side": 128}
        expected = kd.create_descriptor(family, source=path, **options)(image(), "a cat").data
        found = kd.create_descriptor(family, source=pipe, **options)
        assert torch.equal(found(image(), "a cat").data, expected)
        parts = (pipe.unet, pipe.vae, pipe.scheduler)
        found = kd.create_descriptor(family, source=parts, prompt_encoder=pipe, **options)
        assert torch.equal(found(image(), "a cat").data, expected)
        with pytest.raises(InvalidArgumentError, match="needs a VAE and prompts"):
            kd.create_descriptor(parts)

    def test_presets_are_told_apart_by_pipeline_and_configuration(self, folder: Give) -> None:
        unet: Any = loaded(folder("sd1.5")).unet
        for width, name in ((768, "sd1.5"), (1024, "sd2.1")):
            model = type("UNet2DConditionModel", (type(unet),), {})(**unet.config)
            model.register_to_config(cross_attention_dim=width)
            found = describe_loaded(take_apart((model, None)), SPECS)
            assert found.name == name


class TestCleanWeights:
    @torch.no_grad()
    def test_a_file_of_the_unet_sees_the_clean_latent(self, folder: Give, tmp_path: Path) -> None:
        path = folder("sd2.1")
        unet: Any = diffusers.UNet2DConditionModel.from_pretrained(path, subfolder="unet").eval()
        for parameter in unet.parameters():
            parameter.mul_(1.1)
        file = tmp_path / "cleandift_sd21_unet.safetensors"
        save_file(unet.state_dict(), file)
        options: dict[str, Any] = {"source": path, "weights": file, "size": (64, 128)}
        clean: Any = kd.create_descriptor("cleandift-sd2.1", **options)
        found = clean(image(), "a cat")
        torch.manual_seed(1)
        other = kd.create_descriptor("cleandift-sd2.1", seed=7, **options)
        assert torch.equal(other(image(), "a cat").data, found.data)
        latent = encode_images(clean.vae, image())
        told = clean.prompt_encoder(["a cat"])["prompt_embeds"]
        seen: list[Tensor] = []
        unet.up_blocks[1].register_forward_hook(lambda *args: seen.append(args[-1]))
        unet(latent, 261, told)
        torch.testing.assert_close(found.data, seen[0], rtol=0, atol=1e-5)
        assert len(clean.unet.up_blocks) == 4 and file.name in str(clean.identity)
        pipe = (clean.unet, clean.vae, diffusers.PNDMScheduler.from_pretrained(path / "scheduler"))
        given = kd.create_descriptor(
            "cleandift-sd2.1", source=pipe, prompt_encoder=clean.prompt_encoder, size=(64, 128)
        )
        assert torch.equal(given(image(), "a cat").data, found.data)

    def test_there_is_no_noise_to_average(self) -> None:
        with pytest.raises(InvalidArgumentError, match="ensemble must be 1"):
            DIFTConfig(clean=True, ensemble=8)
