from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import layouts
import numpy as np
import published
import pytest
import torch
from PIL import Image

from kornia_ditf import evaluate_sequence, find_protocol, load_dataset
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matching.propagation import Propagation
from kornia_ditf.metrics.accumulate import JAndF
from kornia_ditf.protocols import sequences
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.types import DescriptorMap, Frame

SIDE, FACTOR = 64, 8
PROTOCOL = replace(
    find_protocol("davis-dino"),
    name="small",
    fit=Fit(kind="short-side", side=SIDE, multiple=FACTOR),
    propagation=Propagation(top_k=5, last_frames=2, radius=4, temperature=0.1),
)


def features(count: int, grid: tuple[int, int]) -> list[torch.Tensor]:
    """Features that move one token to the right every second frame."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(16, *grid, generator=generator)
    return [
        torch.roll(scene, index // 2, 2) + 0.3 * torch.randn(scene.shape, generator=generator)
        for index in range(count)
    ]


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (60, 100)])
def test_masks_and_scores_are_those_of_dino_and_davis(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    layouts.davis(tmp_path, frames=7, size=size)
    scores = JAndF()
    objects = []
    for sequence in load_dataset("davis-2017", tmp_path):
        long = int(SIDE * max(size) / min(size)) // FACTOR * FACTOR
        fitted = (SIDE, long) if size[0] <= size[1] else (long, SIDE)
        grid = (fitted[0] // FACTOR, fitted[1] // FACTOR)
        known = dict(zip(sequence.frames, features(7, grid), strict=True))
        result = evaluate_sequence(
            lambda path, known=known, fitted=fitted: DescriptorMap(
                known[path][None], Frame(fitted, fitted)
            ),
            sequence,
            PROTOCOL,
            save_to=tmp_path / "masks",
        )
        scores.update(sequence.name, result.j, result.f)
        first = sequence.read_mask(0).numpy()
        first = np.where(first == 255, 0, first)
        masks = published.davis_propagation(list(known.values()), first, FACTOR, 5, 2, 4, 0.1)
        for path, mask in zip(sequence.frames[1:], masks[1:], strict=True):
            saved = np.array(Image.open(tmp_path / "masks" / sequence.name / f"{path.stem}.png"))
            assert np.array_equal(saved, mask)
        for number in range(1, int(first.max()) + 1):
            j, f = [], []
            for index in result.frames:
                true = sequence.read_mask(index).numpy()
                void = np.zeros(size, bool)
                j.append(published.jaccard(true == number, masks[index] == number, void))
                f.append(published.boundary_f(true == number, masks[index] == number, void))
            objects.append(
                (*published.db_statistics(np.array(j)), *published.db_statistics(np.array(f)))
            )
    expected = np.mean(objects, 0)
    found = scores.compute()
    assert found.j_mean == pytest.approx(expected[0], abs=1e-9)
    assert found.j_recall == pytest.approx(expected[1], abs=1e-9)
    assert found.j_decay == pytest.approx(expected[2], abs=1e-9)
    assert found.f_mean == pytest.approx(expected[3], abs=1e-9)
    assert found.f_decay == pytest.approx(expected[5], abs=1e-9)
    assert found.j_and_f == pytest.approx((expected[0] + expected[3]) / 2, abs=1e-9)
    assert len(found.objects) == 3 and 0.1 < found.j_mean < 0.95


def test_frames_are_described_one_by_one_and_the_last_one_not_at_all(tmp_path: Path) -> None:
    layouts.davis(tmp_path, frames=5)
    sequence = load_dataset("davis-2017", tmp_path)[0]
    asked: list[Path] = []

    def describe(path: Path) -> DescriptorMap:
        asked.append(path)
        return DescriptorMap(torch.ones(1, 4, 8, 12), Frame((64, 96), (64, 96)))

    evaluate_sequence(describe, sequence, PROTOCOL)
    assert asked == list(sequence.frames[:4])


def test_shooting_looks_back_no_further_than_dift_could(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.davis(tmp_path, frames=3)
    sequence = load_dataset("davis-2017", tmp_path)[0]
    described = DescriptorMap(torch.ones(1, 4, 8, 12), Frame((64, 96), (64, 96)))
    asked: list[int] = []

    def propagate(frames: object, mask: object, numbers: Propagation) -> list[torch.Tensor]:
        asked.append(numbers.last_frames)
        return []

    monkeypatch.setattr(sequences, "propagate_masks", propagate)
    theirs = find_protocol("davis-dift")
    ours = replace(theirs, name="ours", compat=frozenset())
    for name, protocol in (("shooting", theirs), ("bear", theirs), ("shooting", ours)):
        evaluate_sequence(lambda _: described, replace(sequence, name=name), protocol)
    assert asked == [10, 28, 28]


def test_saved_masks_have_the_colours_of_davis(tmp_path: Path) -> None:
    layouts.davis(tmp_path, frames=3)
    sequence = load_dataset("davis-2017", tmp_path)[1]
    described = DescriptorMap(torch.ones(1, 4, 8, 12), Frame((64, 96), (64, 96)))
    evaluate_sequence(lambda _: described, sequence, PROTOCOL, save_to=tmp_path)
    palette = Image.open(tmp_path / "two-dogs/00000.png").getpalette()
    assert palette is not None and palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def test_what_cannot_be_scored_is_named(tmp_path: Path) -> None:
    place = layouts.davis(tmp_path, frames=4)
    sequence = load_dataset("davis-2017", tmp_path)[0]
    described = DescriptorMap(torch.ones(1, 4, 8, 12), Frame((64, 96), (64, 96)))
    with pytest.raises(InvalidArgumentError, match="use evaluate_pair"):
        evaluate_sequence(lambda _: described, sequence, find_protocol("plain"))
    short = replace(sequence, frames=sequence.frames[:2], masks=sequence.masks[:2])
    with pytest.raises(InvalidArgumentError, match="2 frames and 1 objects"):
        evaluate_sequence(lambda _: described, short, PROTOCOL)
    (place / "Annotations/480p/bear/00002.png").unlink()
    sequence = load_dataset("davis-2017", tmp_path)[0]
    with pytest.raises(DatasetError, match="has no mask"):
        evaluate_sequence(lambda _: described, sequence, PROTOCOL)
