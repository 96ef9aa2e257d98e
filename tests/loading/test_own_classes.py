"""A transformer and a pipeline that diffusers does not have, declared by their dotted paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kornia_ditf.backbones.sd3 import SD3Backbone
from kornia_ditf.errors import CheckpointError
from kornia_ditf.loading.weights import find_class
from kornia_ditf.registry.families import describe_checkpoint
from kornia_ditf.testing import check_backbone

CODE = """
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

class OwnDiT(SD3Transformer2DModel): pass
class OwnPipeline(StableDiffusion3Pipeline): pass
"""


class Own(SD3Backbone):
    transformer_class = "own_dit_models.OwnDiT"
    pipeline_class = "own_dit_models.OwnPipeline"


def test_classes_of_ones_own_are_loaded_by_their_dotted_paths(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_dit_models.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(tiny_checkpoint("sd3.5-medium"), tmp_path / "model")
    for path, name in (("transformer/config", "OwnDiT"), ("model_index", "OwnPipeline")):
        file = folder / f"{path}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": name}))
    spec = Own.spec(name="own", repo="someone/own", blocks=3, width=32, license="MIT")

    assert describe_checkpoint(folder, [spec]).load == spec.load
    rules = ["modulation_is_what_the_block_applies", "the_plan_is_what_is_held"]
    assert check_backbone(spec, folder, rules=[*rules, "prompts_are_rows_of_their_own"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoSuchDiT", "declare its dotted path, as in 'my_package.models.NoSuchDiT'"),
        ("no_such_package.NoSuchDiT", "cannot import no_such_package"),
        ("torch.nn.NoSuchDiT", "the module torch.nn has no class NoSuchDiT"),
    ],
)
def test_a_class_that_is_missing_is_named_with_what_to_declare(name: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        find_class(name)
