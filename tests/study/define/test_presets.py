from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kornia_ditf.errors import DatasetError
from kornia_ditf.registry.lookup import find_backbone
from kornia_ditf.study.define.listing import list_study, prompt_for
from kornia_ditf.study.define.presets import preset_notes
from kornia_ditf.study.define.spec import Study
from tests.layouts import davis, spair


def notes(root: Path, protocol: str, **descriptor: Any) -> list[str]:
    name = "davis-2017" if protocol.startswith("davis") else "spair-71k"
    study = Study.model_validate(
        {
            "name": "s",
            "descriptors": [descriptor],
            "datasets": [{"name": name, "root": str(root), "protocols": [protocol]}],
        }
    )
    return preset_notes(study, list_study(study))


PROMPT = "a photo of a {category}"


def test_a_preset_with_its_own_protocol_needs_no_note(tmp_path: Path) -> None:
    root = spair(tmp_path)
    assert notes(root, "ditf-spair", name="flux.1-dev", prompt=PROMPT) == []
    assert notes(root, "ditf-spair-960", name="flux.1-dev-960", prompt="{label}") == []
    assert notes(root, "ditf-spair", name="nano") == []
    assert notes(root, "dift-spair", name="flux.1-dev") == []


def test_a_preset_that_meets_another_protocol_is_named_with_what_differs(tmp_path: Path) -> None:
    root = spair(tmp_path)
    [size] = notes(root, "ditf-spair", name="flux.1-dev-960", prompt=PROMPT)
    assert "flux.1-dev-960 with ditf-spair: images of long-side 640 instead of its own" in size
    assert size.endswith("its preset is flux.1-dev")
    [silent] = notes(root, "ditf-spair", name="flux.1-dev")
    assert "prompt '' instead of 'a photo of a {label}'" in silent
    [swept] = notes(root, "ditf-spair", name="flux.1-dev", prompt=PROMPT, timestep=[260, 90])
    assert "timestep 90 instead of 260" in swept


def test_presets_of_dift_belong_to_protocols_of_dift(tmp_path: Path) -> None:
    root = spair(tmp_path)
    assert notes(root, "dift-spair", name="sd2.1", prompt=PROMPT) == []
    assert notes(root, "ditf-spair", name="sd2.1", prompt=PROMPT) == []  # another method's
    [note] = notes(root, "dift-spair", name="sd2.1", options={"up_ft_index": 2})
    assert note.startswith("sd2.1 with dift-spair: up_block 2 instead of 1, prompt ''")
    [note] = notes(root, "dift-spair", name="sd2.1-davis", prompt=PROMPT)
    assert "timestep 51 instead of 261" in note and note.endswith("its preset is sd2.1")


def test_the_davis_preset_belongs_to_the_davis_protocol(tmp_path: Path) -> None:
    root = davis(tmp_path)
    assert notes(root, "davis-ditf", name="flux.1-dev-davis") == []
    [note] = notes(root, "davis-ditf", name="flux.1-dev")
    assert "block 28 instead of 24, timestep 260 instead of 90, ensemble 8 instead of 1" in note
    assert note.endswith("its preset is flux.1-dev-davis")


def test_presets_of_the_authors_hold_their_numbers() -> None:
    davis_preset, larger = (find_backbone(f"flux.1-dev-{name}") for name in ("davis", "960"))
    assert (davis_preset.block, davis_preset.timestep, davis_preset.ensemble) == (24, 90, 1)
    assert davis_preset.massive_channels == (154, 1446)
    assert davis_preset.prompt == "a photo of a image"
    assert (larger.block, larger.timestep, larger.long_side) == (28, 260, 960)
    for name in ("sd3.5-medium", "sd3.5-large"):
        spec = find_backbone(name)
        assert spec.massive_channels == (676,) and not spec.calibrated
        assert "second-hand" in spec.source


def test_captions_stand_for_what_images_show(tmp_path: Path) -> None:
    root = spair(tmp_path / "spair")
    captions = tmp_path / "captions.json"
    choice = {"name": "spair-71k", "root": str(root), "protocols": ["ditf-spair"]}

    def items(**changes: str) -> Any:
        study = {"name": "s", "descriptors": [{"name": "nano"}], "datasets": [choice | changes]}
        [listed] = list_study(Study.model_validate(study))
        return listed.protocols[0][1]

    plain = items()
    first = plain[0].images[0][0]
    captions.write_text(json.dumps({str(Path(first).relative_to(root)): "a cat on a wall"}))
    captioned = items(captions=str(captions))
    assert captioned[0].images[0][2] == "a cat on a wall"
    assert captioned[0].images[1][2] == plain[0].images[1][2] != ""
    assert captioned[0].key != plain[0].key
    captions.write_text("[1]")
    with pytest.raises(DatasetError, match="captions must be one JSON object"):
        items(captions=str(captions))
    with pytest.raises(DatasetError, match="captions cannot be read"):
        items(captions=str(tmp_path / "none.json"))


def test_a_template_names_what_an_image_shows_by_label_or_category() -> None:
    assert prompt_for("a photo of a {category}", "cat") == "a photo of a cat"
    assert prompt_for("{label}", "") == "" and prompt_for("a cat", "dog") == "a cat"
