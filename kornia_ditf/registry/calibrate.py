"""Calibration of a backbone by its name: `kornia-ditf calibrate` in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.calibration.grid import Grid, check_options
from kornia_ditf.calibration.measure import Measurer, Records
from kornia_ditf.calibration.preset import Preset
from kornia_ditf.calibration.result import identify, make_preset, records_file
from kornia_ditf.calibration.samples import Task, labelled, same_scene, semantic
from kornia_ditf.calibration.search import Calibration
from kornia_ditf.calibration.search import calibrate as search
from kornia_ditf.calibration.store import NO_PRESET, add_preset
from kornia_ditf.datasets.files import list_images
from kornia_ditf.datasets.pairs import PairDataset
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.registry.lookup import create_ditf, find_backbone
from kornia_ditf.registry.treatments import find_treatment
from kornia_ditf.utils.checks import check_one_of
from kornia_ditf.utils.progress import Progress


def calibrate(
    name: str | Path,
    images: str | Path | Sequence[str | Path] | PairDataset,
    *,
    task: str = "same-scene",
    blocks: Sequence[int] | None = None,
    timesteps: Sequence[float] | None = None,
    long_sides: Sequence[int] | None = None,
    treatments: Sequence[str] | None = None,
    draws: Sequence[int] | None = None,
    alpha: float | None = None,
    seed: int = 0,
    keep: bool = True,
    **options: Any,
) -> Preset:
    """Find a backbone's block, timestep, longest side, treatment and noise draws by measuring.

    `DiTF.calibrate` is another thing: it finds a descriptor's massive channels alone. Scores are
    kept in the cache as they are measured, so that an interrupted call goes on when repeated.

    Args:
        name: a backbone's name, or a folder of weights.
        images: a folder or files, for a calibration without labels; or labelled pairs.
        task: without labels, `same-scene`, or `semantic` where all show one kind of object.
        blocks: to try; None tries all.
        timesteps: to try; None tries 12 from 0 to 800.
        long_sides: to try, in pixels; None tries 1/2 to 3/2 of the usual one.
        treatments: to try; None tries the paper's.
        draws: numbers of noise draws to try; None tries 1, 2, 4 and 8.
        alpha: how far off a point may be, as a part of the longer side; None takes the task's own.
        seed: of the warps, and of which samples are taken first.
        keep: use the preset for these weights from now on.
        options: of `create_descriptor`, such as `device`.

    Returns:
        the preset; `preset.save(FILE)` writes what `create_descriptor(preset=FILE)` reads.

    Raises:
        InvalidArgumentError: fewer than two images or pairs, or a value is out of range.

    Example:
        >>> preset = calibrate("nano", "photographs", keep=False)  # doctest: +SKIP
        >>> preset.settings.block, preset.settings.timestep  # doctest: +SKIP
        (5, 25)
    """
    spec: BackboneSpec = find_backbone(name, **hub_options(options))
    check_options(options)
    tried: dict[str, Sequence[Any] | None] = {
        "blocks": blocks,
        "timesteps": timesteps,
        "long_sides": long_sides,
        "treatments": None if treatments is None else [find_treatment(each) for each in treatments],
        "draws": draws,
    }
    grid = Grid.of(spec, **{n: None if v is None else tuple(v) for n, v in tried.items()})
    prompt = options.get("prompt", spec.prompt)
    aim = make_task(images, task, prompt=prompt, alpha=alpha, seed=seed)
    preset, _ = measure_preset(spec, aim, grid, options, seed=seed)
    if keep:
        add_preset(preset)
    return preset


def make_task(
    images: str | Path | Sequence[str | Path] | PairDataset,
    task: str,
    *,
    prompt: str,
    alpha: float | None,
    seed: int,
    warps: int | None = None,
    count: int | None = None,
    protocol: str | None = None,
) -> Task:
    """Create the task that a calibration scores; see `calibrate`, `same_scene` and `labelled`."""
    given: dict[str, Any] = {"seed": seed} if alpha is None else {"seed": seed, "alpha": alpha}
    if isinstance(images, PairDataset):
        return labelled(images, count=count, protocol=protocol, prompt=prompt, **given)
    check_one_of("task", task, ("same-scene", "semantic"))
    files = list_images(images) if isinstance(images, str | Path) else list(map(Path, images))
    if task == "semantic":
        return semantic(files, **given)
    return same_scene(files, warps=warps, **given)


def measure_preset(
    spec: BackboneSpec,
    task: Task,
    grid: Grid,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    exhaustive: bool = False,
    progress: Progress | None = None,
) -> tuple[Preset, Calibration]:
    """Load a backbone and search a grid; returns the preset, and all that was measured.

    Args:
        spec: of the backbone.
        task: what is scored.
        grid: the settings.
        options: of `create_ditf`.
        seed: as for `calibrate`.
        exhaustive: measure every setting on all samples.
        progress: receives the progress of the work.
    """
    prompt = options.get("prompt", spec.prompt).replace("{label}", "")
    own = {"block": grid.blocks[-1], "preset": NO_PRESET, "prompt": prompt}
    ditf = create_ditf(spec.name, **{**options, **own})
    measurer = Measurer(ditf, Records(records_file(ditf)))
    found = search(measurer, task, grid, seed=seed, exhaustive=exhaustive, progress=progress)
    weights = identify(spec, options.get("source"), ditf, hub_options(options))
    return make_preset(weights, spec, ditf, task, found), found
