from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import REPO, FakeHub, http_error
from safetensors import safe_open
from torch import Tensor

from kornia_ditf.backbones.flux import FluxBackbone
from kornia_ditf.backbones.pixart import PixArtBackbone
from kornia_ditf.backbones.sd3 import SD3Backbone
from kornia_ditf.errors import (
    CheckpointError,
    GatedRepositoryError,
    HubUnreachableError,
    InvalidArgumentError,
    OutputError,
)
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.prompts import CachedPromptEncoder, PromptCache
from kornia_ditf.loading.weights import without_progress_bars, without_remarks

Checkpoints = Callable[[str], Path]
BACKBONES: dict[str, Any] = {
    "flux": FluxBackbone,
    "sd3": SD3Backbone,
    "pixart-alpha": PixArtBackbone,
}


def encoder(
    source: Path | str, cache: Path, family: str = "flux", **changes: Any
) -> CachedPromptEncoder:
    backbone = BACKBONES[family]
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        **changes,
    }
    made = CachedPromptEncoder(
        Checkpoint(source), backbone.pipeline_class, backbone.encode_prompt, **options
    )
    made.cache = PromptCache(cache)
    return made


@pytest.fixture
def folder(tiny_checkpoint: Checkpoints, tmp_path: Path) -> Path:
    """Give a FLUX that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))


def remove_text_encoders(folder: Path) -> None:
    for path in [*folder.glob("text_encoder*"), *folder.glob("tokenizer*")]:
        shutil.rmtree(path)


@pytest.mark.parametrize("family", BACKBONES)
@torch.no_grad()
def test_embeddings_are_those_of_the_familys_own_pipeline(
    family: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    import diffusers

    backbone = BACKBONES[family]
    with without_progress_bars():
        whole = getattr(diffusers, backbone.pipeline_class).from_pretrained(tiny_checkpoint(family))
    prompts = ["a cat", "", "a dog and a longer tale"]
    found = encoder(tiny_checkpoint(family), tmp_path / "new", family)(prompts)
    for row, prompt in enumerate(prompts):
        expected: Mapping[str, Tensor] = backbone.encode_prompt(whole, prompt)
        assert expected.keys() == found.tensors.keys()
        for name, value in expected.items():
            assert torch.equal(found[name][row : row + 1], value), (prompt, name)


def test_a_second_run_needs_no_text_encoder(folder: Path, tmp_path: Path) -> None:
    prompts = ["a cat", "a dog", "a cat"]
    first = encoder(folder, tmp_path / "cache")(prompts)
    remove_text_encoders(folder)
    again = encoder(folder, tmp_path / "cache")
    second = again(prompts[::-1])
    for name, value in first.tensors.items():
        assert len(value) == 3
        assert torch.equal(second[name], value.flip(0))
        assert torch.equal(value[0], value[2]) and not torch.equal(value[0], value[1])
    with pytest.raises(CheckpointError, match="uncached prompt"):
        again(["a horse"])


def test_each_prompt_is_embedded_once_and_alone(folder: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(pipeline: Any, prompt: str) -> dict[str, Tensor]:
        assert pipeline.transformer is None and pipeline.vae is None
        asked.append(prompt)
        return {"embedding": torch.full((1, 2), float(len(prompt)))}

    cached = encoder(folder, tmp_path / "cache")
    cached.encode = encode
    cached.prepare(["aa", "b", "aa"])
    assert asked == ["aa", "b"]
    assert cached(["b", "aa", "ccc"])["embedding"][:, 0].tolist() == [1, 2, 3]
    cached.prepare(["aa", "ccc"])
    assert asked == ["aa", "b", "ccc"]


def test_other_weights_pipelines_and_dtypes_have_embeddings_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    def path(prompt: str = "a cat", pipeline: str = "FluxPipeline", **changes: Any) -> Path:
        cached = encoder(folder, tmp_path, **changes)
        cached.pipeline_class = pipeline
        return cached.cache.path(cached._key(prompt))

    paths = [path(), path("a cat "), path(pipeline="OtherPipeline"), path(dtype=torch.bfloat16)]
    (folder / "vae/config.json").write_text("{}")
    paths.append(path())
    assert len(set(paths)) == len(paths)


def test_other_text_encoders_in_the_same_folder_embed_anew(
    folder: Path, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    first = encoder(folder, tmp_path / "cache")(["a cat"])
    weights = folder / "text_encoder_2/model.safetensors"
    changed = {name: 2 * value for name, value in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    second = encoder(folder, tmp_path / "cache")(["a cat"])
    assert not torch.equal(first["prompt_embeds"], second["prompt_embeds"])
    expected = encoder(folder, tmp_path / "other")(["a cat"])
    assert torch.equal(second["prompt_embeds"], expected["prompt_embeds"])


def test_a_cached_file_says_what_it_is(folder: Path, tmp_path: Path) -> None:
    cached = encoder(folder, tmp_path)
    cached(["a cat"])
    (path,) = tmp_path.glob("*.safetensors")
    assert path == cached.cache.path(cached._key("a cat"))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {
            "identity": cached.checkpoint.identity,
            "text_encoders": cached.checkpoint.text_identity,
            "pipeline": "FluxPipeline",
            "prompt": "a cat",
        }


def test_an_embedding_that_was_replaced_is_made_anew(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = encoder(folder, cache)(["a cat"])
    (path,) = cache.glob("*.safetensors")
    encoder(folder, tmp_path / "other")(["a dog"])
    path.write_bytes(next((tmp_path / "other").glob("*.safetensors")).read_bytes())
    found = encoder(folder, cache)(["a cat"])
    assert all(torch.equal(found[name], value) for name, value in expected.tensors.items())


@pytest.mark.parametrize("keep", [0, 5, -9])
def test_a_damaged_embedding_is_told_of_and_made_anew(
    folder: Path, tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    expected = encoder(folder, cache)(["a cat"])
    (path,) = cache.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with caplog.at_level(logging.WARNING, "kornia_ditf"):
        found = encoder(folder, cache)(["a cat"])
    assert str(path) in caplog.text
    assert all(torch.equal(found[name], value) for name, value in expected.tensors.items())
    caplog.clear()
    encoder(folder, cache)(["a cat"])
    assert not caplog.records and list(cache.glob("*.safetensors")) == [path]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("text_encoder_2/model.safetensors", lambda path: path.unlink()),
        ("text_encoder_2/model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-9])),
        ("text_encoder/model.safetensors", lambda path: path.write_bytes(b"x" * 2000)),
        ("text_encoder_2/config.json", lambda path: path.write_text("{")),
        ("model_index.json", lambda path: path.write_text("[]")),
        ("model_index.json", lambda path: path.unlink()),
        ("tokenizer_2/tokenizer.json", lambda path: path.write_text("{")),
    ],
)
def test_bad_text_encoders_are_an_error_of_the_checkpoint(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    damage(folder / name)
    with pytest.raises(CheckpointError):
        encoder(folder, tmp_path / "cache")(["a cat"])
    assert not (tmp_path / "cache").exists()


def test_no_prompt_at_all_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="at least one prompt"):
        encoder(folder, tmp_path)([])


def test_a_cache_that_cannot_be_written_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="KORNIA_DITF_CACHE"):
        encoder(folder, tmp_path / "file" / "cache")(["a cat"])


def test_embedding_is_silent(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import diffusers

    assert diffusers.FluxPipeline  # importing it may speak of what is not installed
    capfd.readouterr()
    encoder(folder, tmp_path)(["a cat"])
    assert tuple(capfd.readouterr()) == ("", "")


def test_refusals_of_the_hub_come_through(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(folder, tmp_path / "hub", monkeypatch)
    hub.download_refusal = http_error("GatedRepoError", 403)
    with pytest.raises(GatedRepositoryError, match="accept the licence"):
        encoder(REPO, tmp_path / "cache")(["a cat"])
    hub.refusal = TimeoutError("timed out")
    with pytest.raises(HubUnreachableError):
        encoder(REPO, tmp_path / "cache")(["a cat"])


def test_remarks_are_kept_back_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging as messages

    before = messages.get_verbosity()
    logger = logging.getLogger("transformers.some_model")
    logger.propagate = True
    caplog.handler.setLevel(0)
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        with without_remarks():
            logger.warning("a remark")
            logger.error("an error")
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "an error" in caplog.text and "a remark" not in caplog.text
    assert messages.get_verbosity() == before
