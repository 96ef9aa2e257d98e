"""Two studies are compared on the same pairs, and what cannot be is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from kornia_ditf.errors import StudyError
from kornia_ditf.metrics.statistics import holm, paired_permutation
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.share.compare import compare_studies, comparison_page


def only(study: Study, **settings: Any) -> Study:
    chosen = study.descriptors[0].model_copy(update={"treatment": ["raw"], **settings})
    return study.model_copy(update={"descriptors": [chosen]})


def shares(folder: Path) -> np.ndarray[Any, Any]:
    """PCK of each pair at the first threshold."""
    rows = pq.read_table(folder / "records.parquet").to_pylist()
    return np.array([np.mean(row["hits"][0]) for row in rows])


def test_cells_are_differences_on_the_same_pairs(studies: Any) -> None:
    a, b = (
        studies(f"raw {block}", only(studies.study(), block=[block], label="one"))
        for block in (1, 2)
    )
    found = compare_studies(a, b)
    first = found.cells[0]
    moved = shares(b) - shares(a)
    assert first.score == "PCK@0.1 per image" and first.descriptor == "one"
    assert (first.a, first.b) == pytest.approx((shares(a).mean(), shares(b).mean()))
    assert first.difference.value == pytest.approx(moved.mean())
    assert first.difference.low <= moved.mean() <= first.difference.high
    assert first.p == paired_permutation(moved)
    assert [c.corrected for c in found.cells] == holm([c.p for c in found.cells])
    assert ("one on folder, plain: settings.block", 1, 2) in found.settings


def test_a_study_differs_from_itself_in_nothing(studies: Any) -> None:
    found = compare_studies(studies("whole"), studies("whole"))
    assert {(cell.difference.value, cell.p) for cell in found.cells} == {(0.0, 1.0)}
    assert found.settings == () and found.left_out == ()


def test_what_is_not_comparable_is_said_and_the_rest_compared(studies: Any) -> None:
    treatments = studies.study().descriptors[0].treatment
    half = only(studies.study(), block=[1], label="nano block 1", treatment=treatments)
    found = compare_studies(studies("whole"), studies("block 1", half))
    assert {cell.descriptor for cell in found.cells} == {
        *("nano block 1 treatment raw", "nano block 1 treatment adaln+discard")
    }
    assert found.left_out[0] == "nano block 2 treatment raw on folder, plain: only in A"
    with pytest.raises(StudyError, match="can be compared: nano .* only in A"):
        raw = only(studies.study(), block=[1], label="one")
        compare_studies(studies("whole"), studies("raw 1", raw))
    part = studies("part 1", part=(1, 2))
    with pytest.raises(StudyError, match="pairs are 4 and 2"):
        compare_studies(studies("whole"), part)


def test_names_in_the_page_of_a_comparison_are_no_markup(studies: Any) -> None:
    odd = "<img src=x onerror=alert(1)>"
    study = only(studies.study(), label=odd, block=[1])
    found = compare_studies(
        studies("odd", study), studies("raw 1", only(studies.study(), block=[1], label="one"))
    )
    page = comparison_page(found, odd, "b")
    assert "<img" not in page and page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
