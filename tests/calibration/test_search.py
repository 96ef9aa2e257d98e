from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kornia_ditf.calibration.grid import Grid
from kornia_ditf.calibration.measure import Measurer, Records
from kornia_ditf.calibration.result import records_file
from kornia_ditf.calibration.samples import Task, labelled, same_scene, semantic
from kornia_ditf.calibration.search import TOLERANCE, Calibration, calibrate
from kornia_ditf.datasets.pairs import PairDataset
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.datasets import load_dataset


def search(ditf: DiTF, task: Task, grid: Grid, file: Path | None = None) -> Calibration:
    return calibrate(Measurer(ditf, Records(file)), task, grid)


def labels(images: list[Path], *, alpha: float, seed: int) -> Task:
    data = load_dataset("synthetic", images[0].parent, split="viewpoint")
    assert isinstance(data, PairDataset)
    return labelled(data, alpha=alpha, seed=seed)


ONE_WARP = partial(same_scene, warps=1)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (ONE_WARP, "noise"),
        *((semantic, left) for left in ("noise", "position")),
        *((make, "constant") for make in (ONE_WARP, labels)),
        (labels, "noise"),
    ],
)
def test_the_block_that_keeps_everything_is_chosen_and_a_destroyed_timestep_never(
    make: Callable[..., Task], left: str, ditf: DiTF, grid: Grid, photographs: list[Path]
) -> None:
    ditf.backbone.left = left  # type: ignore[assignment]
    for seed, destroyed in enumerate((0, 100)):
        task = make(photographs, alpha=0.15, seed=seed)
        ditf.backbone.destroyed = destroyed  # type: ignore[assignment]
        found = calibrate(Measurer(ditf, Records(None)), task, grid, seed=seed)
        assert found.cell.block == 1
        assert found.cell.timestep != destroyed
        assert found.screened[destroyed, 1] < 0.5 * found.score.value


def test_of_tied_settings_the_cheapest_is_chosen(
    ditf: DiTF, grid: Grid, photographs: list[Path]
) -> None:
    task = same_scene(photographs, warps=1)
    cell = calibrate(Measurer(ditf, Records(None)), task, grid, tolerance=1.0).cell
    assert (cell.block, cell.long_side, cell.draws, cell.treatment) == (0, 48, 1, "raw")


def test_the_interval_holds_the_score_and_the_choice_is_as_sure_as_said(
    ditf: DiTF, grid: Grid, photographs: list[Path]
) -> None:
    found = search(ditf, same_scene(photographs, warps=1, alpha=0.15), grid)
    assert 0 <= found.score.low <= found.score.value <= found.score.high <= 1
    assert 0 < found.certainty <= 1
    assert found.score.value >= max(found.finalists.values()) - TOLERANCE


def test_an_interrupted_run_goes_on_and_chooses_as_an_undisturbed_one(
    ditf: DiTF, grid: Grid, photographs: list[Path], tmp_path: Path
) -> None:
    task = same_scene(photographs, warps=1, alpha=0.15)
    undisturbed = search(ditf, task, grid, tmp_path / "whole.jsonl")
    whole = ditf.backbone.calls

    class Killed(Exception):
        pass

    file = tmp_path / "part.jsonl"

    class Dying(Measurer):
        def scores(self, *arguments, **named):  # type: ignore[no-untyped-def]
            if len(self.reached) == 5:
                raise Killed
            return super().scores(*arguments, **named)

    with pytest.raises(Killed):
        calibrate(Dying(ditf, Records(file)), task, grid)
    with file.open("ab") as torn:
        torn.write(file.read_bytes().splitlines()[-1][:-9])
    ditf.backbone.calls = 0
    assert search(ditf, task, grid, file) == undisturbed
    assert 0 < ditf.backbone.calls < whole
    ditf.backbone.calls = 0
    assert search(ditf, task, grid, file) == undisturbed
    assert ditf.backbone.calls == 0


def test_the_stages_lose_nothing_here_and_cost_less_than_the_grid(
    ditf: DiTF, grid: Grid, photographs: list[Path]
) -> None:
    task = same_scene(photographs, warps=1, alpha=0.15)
    halved = search(ditf, task, grid)
    whole = calibrate(Measurer(ditf, Records(None)), task, grid, exhaustive=True)
    assert len(whole.finalists) == grid.size == 3 * 2 * (1 + 2 + 2)
    assert halved.score.value >= whole.score.value - 0.01
    assert halved.flops < halved.grid_flops
    assert whole.flops > halved.flops


def test_a_side_that_the_model_refuses_is_reported_and_not_chosen(
    ditf: DiTF, grid: Grid, photographs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    taps = type(ditf.backbone).taps

    def refuse(self, latent, *arguments, **named):  # type: ignore[no-untyped-def]
        if max(latent.shape[2:]) > 48:
            raise InvalidArgumentError("too large; use a smaller long_side")
        return taps(self, latent, *arguments, **named)

    monkeypatch.setattr(type(ditf.backbone), "taps", refuse)
    task = same_scene(photographs, warps=1, alpha=0.15)
    found = search(ditf, task, grid)
    assert found.cell.long_side == 48
    assert {forward.long_side for forward in found.failures} == {64}
    with pytest.raises(InvalidArgumentError, match="too large"):
        search(ditf, task, replace(grid, long_sides=(64,)))


def test_scores_of_other_features_lie_in_other_files(ditf: DiTF) -> None:
    def file(**changes: object) -> Path | None:
        return records_file(DiTF(ditf.backbone, replace(ditf.config, **changes)))  # type: ignore[arg-type]

    own = file()
    assert own == file(block=1, timestep=50, long_side=48, ensemble=2, rows_per_forward=1)
    others = [{"prompt": "a cat"}, {"seed": 1}, {"timesteps": (0, 50)}, {"blocks": (0, 1)}]
    others.append({"facet": "key", "treatment": "raw"})
    assert len({own, *(file(**each) for each in others)}) == 1 + len(others)


@pytest.mark.parametrize("name", ["facet", "blocks", "timesteps"])
def test_what_a_preset_does_not_hold_is_refused(name: str, ditf: DiTF) -> None:
    value = {"facet": "key", "blocks": (0, 1), "timesteps": (0, 50)}[name]
    config = replace(ditf.config, treatment="raw", **{name: value})
    with pytest.raises(InvalidArgumentError, match=f"got {name}="):
        Measurer(DiTF(ditf.backbone, config), Records(None))


def test_one_image_is_not_enough(photographs: list[Path]) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 2 images or pairs"):
        same_scene(photographs[:1])
