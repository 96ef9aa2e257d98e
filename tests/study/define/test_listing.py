"""Sets of every kind go through a study, and its tables hold what the evaluation itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest

from kornia_ditf import load_dataset
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.sequences import evaluate_sequence
from kornia_ditf.registry.lookup import create_ditf
from kornia_ditf.study.define.listing import list_study, resolve_protocol
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import ProtocolChoice
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.run.summary import read_summary

SMALL = {"fit": {"side": 48}}


@pytest.fixture
def descriptor(make_study: Any) -> dict[str, Any]:
    source = read_study(make_study()).descriptors[0].source
    return {"name": "nano", "source": source, "block": 2, "treatment": "raw"}


def test_videos_are_scored_as_the_evaluation_scores_them(
    make_study: Any, descriptor: dict[str, Any], tmp_path: Path
) -> None:
    root = layouts.davis(tmp_path)
    protocol = {"name": "davis-dino", "overrides": SMALL}
    datasets = [{"name": "davis-2017", "root": str(root), "split": "val"}]
    file = make_study(descriptors=[descriptor], datasets=datasets, protocols=[protocol])
    run_study(read_study(file), tmp_path / "out")
    (section,) = analyse(tmp_path / "out", read_summary(tmp_path / "out"))
    assert write_report(tmp_path / "out")

    chosen = resolve_protocol(ProtocolChoice(**protocol))
    ditf = create_ditf(
        "nano", source=descriptor["source"], block=2, treatment="raw", long_side=None
    )
    results = [
        evaluate_sequence(lambda path: ditf(prepare_image(path, chosen)), sequence, chosen)
        for sequence in load_dataset("davis-2017", root, split="val")
    ]
    j, f = (
        float(np.mean(np.concatenate([getattr(result, name).mean(1) for result in results])))
        for name in "jf"
    )
    found = {s.name: v.value for s, v in zip(section.scores, section.rows[0].values, strict=True)}
    assert found == pytest.approx({"J&F": (j + f) / 2, "J": j, "F": f}, abs=1e-9)


def test_pairs_with_boxes_and_prompts_go_through(
    make_study: Any, tmp_path: Path, descriptor: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    whole = DiTF.prepared_taps

    def heard(self: DiTF, images: Any, blocks: Any, prompts: Any = None) -> Any:
        told.extend(prompts or ())
        return whole(self, images, blocks)  # nano takes no prompts

    monkeypatch.setattr(DiTF, "prepared_taps", heard)
    datasets = [{"name": "spair-71k", "root": str(layouts.spair(tmp_path)), "split": "test"}]
    protocol = {"name": "ditf-spair", "overrides": SMALL}
    file = make_study(
        descriptors=[{**descriptor, "prompt": "a photo of a {label}"}],
        datasets=datasets,
        protocols=[protocol],
    )
    run_study(read_study(file), tmp_path / "out")
    (listed,) = list_study(read_study(file))
    labels = {label for _, items in listed.protocols for item in items for *_, label in item.images}
    assert labels and set(told) == {f"a photo of a {label}" for label in labels}
    (section,) = analyse(tmp_path / "out", read_summary(tmp_path / "out"))
    assert section.protocol["base"] == "box"


def test_a_protocol_for_another_kind_of_set_is_refused(
    make_study: Any, descriptor: dict[str, Any], tmp_path: Path
) -> None:
    file = make_study(descriptors=[descriptor], protocols=["davis-dino"])
    with pytest.raises(InvalidArgumentError, match="'davis-dino' scores masks, and 'folder' has"):
        run_study(read_study(file), tmp_path / "out")


def test_an_override_that_a_protocol_does_not_have_is_refused() -> None:
    choice = ProtocolChoice(name="plain", overrides={"alpha": [0.1]})
    with pytest.raises(
        InvalidArgumentError, match="'plain' is named 'alpha'; did you mean 'alphas'"
    ):
        resolve_protocol(choice)
