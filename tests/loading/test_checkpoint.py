from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import REPO, FakeHub, http_error

from kornia_ditf.errors import (
    CheckpointError,
    GatedRepositoryError,
    HubError,
    HubUnreachableError,
    InvalidArgumentError,
)
from kornia_ditf.loading.checkpoint import WEIGHTS, Checkpoint

SINGLE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint("flux"), tmp_path / "flux"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(folder, tmp_path / "cache", monkeypatch)


def connection_error() -> Exception:
    from huggingface_hub.errors import HTTPError

    return HTTPError("name or service not known")


@pytest.mark.parametrize(
    "source", ["no such folder", "model", "a/b/c", "./a/b", "a/..", "owner/a--b", "a b/c"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        Checkpoint(source)


@pytest.mark.parametrize("options", [{"revision": 1}, {"variant": ""}, {"revision": ["main"]}])
def test_a_revision_or_variant_that_is_no_text_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a string"):
        Checkpoint(REPO, **options)


@pytest.mark.parametrize("source", ["", " "])
def test_an_empty_source_is_refused(source: str) -> None:
    with pytest.raises(InvalidArgumentError, match="empty"):
        Checkpoint(source)


def test_a_tilde_in_an_option_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Checkpoint(REPO, cache_dir="~/models").cache_dir == "/home/somebody/models"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (
            '{"_class_name": "FluxTransformer2DModel"}',
            "one part of a model, a FluxTransformer2DModel",
        ),
        ('{"model_type": "dinov2"}', "a transformers model of the type 'dinov2'"),
        (None, "no model in the diffusers layout"),
    ],
)
def test_a_folder_of_another_layout_is_told_what_it_is(
    tmp_path: Path, file: str | None, told: str
) -> None:
    if file is not None:
        (tmp_path / "config.json").write_text(file)
    with pytest.raises(CheckpointError, match=told):
        Checkpoint(tmp_path).json("model_index.json")


@pytest.mark.parametrize(
    "names", [["model.fp16"], ["model.fp16-00001-of-00002", "model.fp16-00002-of-00002"]]
)
def test_weights_that_have_only_a_variant_name_the_option(folder: Path, names: list[str]) -> None:
    for name in names:
        shutil.copy(folder / SINGLE, folder / f"vae/diffusion_pytorch_{name}.safetensors")
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="only the variant fp16: give variant='fp16'"):
        Checkpoint(folder).shards("vae")


def test_a_variant_is_read_where_there_is_one_and_missed_in_the_transformer(folder: Path) -> None:
    variant = folder / "vae/diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(folder / SINGLE, variant)
    checkpoint = Checkpoint(folder, variant="fp16")
    assert set(checkpoint.shards("vae").values()) == {
        "vae/diffusion_pytorch_model.fp16.safetensors"
    }
    variant.unlink()
    assert set(checkpoint.shards("vae").values()) == {SINGLE}
    told = "it has no variant 'fp16'; leave variant out"
    with pytest.raises(CheckpointError, match=told):
        checkpoint.shards("transformer")
    shutil.copy(folder / SINGLE, variant)
    told = "it has no variant 'bf16'; leave variant out, or give variant='fp16'"
    with pytest.raises(CheckpointError, match=told):
        Checkpoint(folder, variant="bf16").file("vae/diffusion_pytorch_model.bf16.safetensors")
    assert checkpoint.identity != Checkpoint(folder).identity


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_missing_shard_is_named(folder: Path, variant: str | None) -> None:
    kind = "" if variant is None else f".{variant}"
    shard = f"transformer/{WEIGHTS}{kind}-00001-of-00002.safetensors"
    shutil.copy(folder / SINGLE, folder / shard)
    missing = shard.replace("00001-of", "00002-of")
    with pytest.raises(CheckpointError, match=f"{missing}: one of its shards is missing"):
        Checkpoint(folder, variant=variant).file(missing)


@pytest.mark.parametrize(
    "shard", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "..\\x", "", 3, None]
)
def test_a_shard_outside_of_its_folder_is_refused(folder: Path, shard: Any) -> None:
    name = "transformer/diffusion_pytorch_model.safetensors.index.json"
    (folder / name).write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(CheckpointError, match="weight_map|not a file in its own folder"):
        Checkpoint(folder).shards("transformer")


def test_a_mistyped_folder_is_named_where_the_hub_does_not_help(
    folder: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refusal = connection_error()
    monkeypatch.chdir(folder.parent)
    (folder.parent / "someone" / "models").mkdir(parents=True)
    with pytest.raises(HubUnreachableError, match=f"no folder {REPO}; did you mean .*models"):
        Checkpoint(REPO).json("model_index.json")


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no vae/other\.json"):
        Checkpoint(folder).file("vae/other.json")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]", b""])
def test_a_damaged_json_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "vae/config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"vae/config\.json"):
        Checkpoint(folder).json("vae/config.json")


@pytest.mark.parametrize("pickle", ["model.bin", "model.bin.index.json"])
def test_pickled_weights_are_refused_with_the_reason(folder: Path, pickle: str) -> None:
    (folder / SINGLE).unlink()
    (folder / f"vae/diffusion_pytorch_{pickle}").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="can run code"):
        Checkpoint(folder).shards("vae")


def test_shards_name_the_file_of_every_tensor(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    index = json.loads(
        (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    assert checkpoint.shards("transformer") == {
        name: f"transformer/{file}" for name, file in index["weight_map"].items()
    }
    assert set(checkpoint.shards("vae").values()) == {SINGLE}
    assert checkpoint.weight_map("vae") is None


def test_an_index_without_weights_is_refused(folder: Path) -> None:
    name = "transformer/diffusion_pytorch_model.safetensors.index.json"
    (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        Checkpoint(folder).shards("transformer")


def test_identity_changes_with_any_weight_or_configuration(folder: Path) -> None:
    def identity() -> str:
        return Checkpoint(folder).identity

    first = identity()
    assert identity() == first
    (folder / "notes.txt").write_text("anything")
    assert identity() == first
    os.utime(folder / SINGLE, ns=(1, 1))
    second = identity()
    assert second != first
    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps({**config, "scaling_factor": 7.0}))
    assert identity() not in (first, second)


def test_identity_does_not_hang_on_the_text_encoders(folder: Path) -> None:
    """They may be deleted once their prompts are cached."""
    before = Checkpoint(folder)
    assert before.identity and before.text_identity
    shutil.rmtree(folder / "text_encoder_2")
    after = Checkpoint(folder)
    assert after.identity == before.identity
    assert after.text_identity not in (None, before.text_identity)
    for path in [*folder.glob("text_encoder*"), *folder.glob("tokenizer*")]:
        shutil.rmtree(path)
    assert Checkpoint(folder).text_identity is None


def test_on_the_hub_sizes_and_identity_cost_no_download(hub: FakeHub) -> None:
    checkpoint = Checkpoint(REPO)
    assert checkpoint.size(SINGLE) == (hub.folder / SINGLE).stat().st_size
    assert checkpoint.exists(SINGLE) and not checkpoint.exists("vae/other.json")
    assert SINGLE in checkpoint.files() and not checkpoint.has(SINGLE)
    assert checkpoint.identity == f"{REPO}@{hub.sha}"
    assert not hub.downloaded


def test_from_the_hub_a_file_comes_alone_and_once(hub: FakeHub) -> None:
    checkpoint = Checkpoint(REPO)
    assert checkpoint.json("vae/config.json") == checkpoint.json("vae/config.json")
    assert hub.downloaded == ["vae/config.json"]
    assert checkpoint.has("vae/config.json")


def test_what_the_hub_lacks_is_named_by_size_and_by_file(hub: FakeHub) -> None:
    (hub.folder / SINGLE).unlink()
    (hub.folder / "vae/diffusion_pytorch_model.bin").write_bytes(b"")
    for ask in (Checkpoint(REPO).size, Checkpoint(REPO).file):
        with pytest.raises(CheckpointError, match="can run code"):
            ask(SINGLE)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_file_tells_where_to_accept_the_licence(hub: FakeHub, status: int) -> None:
    hub.download_refusal = http_error("GatedRepoError", status)
    with pytest.raises(GatedRepositoryError, match=rf"huggingface\.co/{REPO}.*hf auth login"):
        Checkpoint(REPO).json("vae/config.json")


def test_a_repository_that_asks_for_a_login_is_gated(hub: FakeHub) -> None:
    hub.refusal = http_error("HfHubHTTPError", 403)
    with pytest.raises(GatedRepositoryError, match="accept the licence"):
        _ = Checkpoint(REPO).identity


def test_an_unknown_repository_or_revision_is_not_called_gated(hub: FakeHub) -> None:
    for kind, told in (
        ("RepositoryNotFoundError", "check the name"),
        ("RevisionNotFoundError", "no revision 'v9'"),
    ):
        hub.refusal = http_error(kind, 404)
        with pytest.raises(HubError, match=told) as caught:
            Checkpoint(REPO, revision="v9").json("model_index.json")
        assert not isinstance(caught.value, GatedRepositoryError)


@pytest.mark.parametrize(
    "refusal",
    [
        connection_error(),
        TimeoutError("timed out"),
        http_error("HfHubHTTPError", 503),
    ],
)
def test_without_the_hub_cached_files_serve_and_others_say_what_to_do(
    hub: FakeHub, refusal: Exception
) -> None:
    online = Checkpoint(REPO)
    online.json("model_index.json")
    hub.refusal = refusal
    offline = Checkpoint(REPO)
    assert offline.json("model_index.json") == online.json("model_index.json")
    assert offline.identity.startswith(REPO)
    assert not offline.exists("vae/config.json")
    with pytest.raises(HubUnreachableError, match="give a local folder"):
        offline.json("vae/config.json")
    with pytest.raises(HubUnreachableError, match="cannot list the files"):
        offline.files()


def test_local_files_only_never_asks_the_hub(hub: FakeHub) -> None:
    hub.refusal = AssertionError("asked")
    with pytest.raises(HubUnreachableError):
        Checkpoint(REPO, local_files_only=True).json("model_index.json")


def test_a_download_that_breaks_off_is_an_error_of_the_hub(hub: FakeHub) -> None:
    for error in (OSError("no space left on device"), http_error("HfHubHTTPError", 500)):
        hub.download_refusal = error
        with pytest.raises(HubError, match=r"vae/config\.json"):
            Checkpoint(REPO).json("vae/config.json")


def test_diffusers_is_told_to_load_the_same_commit(hub: FakeHub, folder: Path) -> None:
    pinned = Checkpoint(REPO, revision="main", token="t").pretrained_options()
    assert (pinned["revision"], pinned["token"]) == (hub.sha, "t")
    assert not pinned["local_files_only"]
    hub.refusal = connection_error()
    assert Checkpoint(REPO).pretrained_options()["local_files_only"]
    local = Checkpoint(folder).pretrained_options()
    assert local["pretrained_model_name_or_path"] == str(folder) and local["local_files_only"]


def test_a_single_model_has_a_name_without_the_hub_too(hub: FakeHub, folder: Path) -> None:
    shutil.copy(folder / "transformer" / "config.json", folder / "config.json")
    (folder / "model_index.json").unlink()
    Checkpoint(REPO).file("config.json")
    hub.refusal = connection_error()
    assert Checkpoint(REPO).identity == f"{REPO}@{hub.sha}"
