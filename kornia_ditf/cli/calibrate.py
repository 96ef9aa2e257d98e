"""`kornia-ditf calibrate`: find a backbone's setting by measuring, and use it from then on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import options, output, values
from kornia_ditf.cli.presets import calibrated_facts
from kornia_ditf.cli.progress import StageProgress
from kornia_ditf.utils.text import byte_size

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.calibration.grid import Grid
    from kornia_ditf.calibration.plan import CalibrationPlan
    from kornia_ditf.calibration.samples import Task


@options.describing(
    *("source", "blocks", "timesteps", "treatment", "rows"),
    *("prompt", "seed", "dtype", "device", "option"),
    treatment=list[str] | None,
)
def calibrate(
    backbone: Annotated[str, typer.Argument(metavar="NAME|FOLDER", show_default=False)],
    images: Path | None = None,
    task: str = "same-scene",
    dataset: str | None = None,
    root: Path | None = None,
    split: str | None = None,
    pairs: int | None = None,
    protocol: str | None = None,
    alpha: float | None = None,
    warps: int | None = None,
    long_sides: str | None = None,
    draws: str = "1,2,4,8",
    *,
    chosen: options.Chosen,
    plan: bool = False,
    exhaustive: bool = False,
    out: Path | None = None,
    use: bool = True,
    as_json: options.Json = False,
) -> None:
    """Choose block, timestep, longest side, treatment and noise draws of a backbone by measurement.

    --images needs no labels: points are found in warped and relit copies of each image
    (same-scene), or followed to another image of the category and back (semantic). Scores are
    stored as they are measured: after an interruption, the same command resumes.

    Options:
        --images FOLDER: Calibrate on these images, without labels.
        --task NAME: Task for --images: same-scene (warped copies), or semantic (all show objects of
            one category).
        --dataset NAME: Calibrate on the labels of this data set (`kornia-ditf datasets` lists
            them).
        --root FOLDER: Folder of the data set.
        --split NAME: Split of the data set.
        --pairs N: Use N pairs of the data set, drawn at random.
        --protocol NAME: Score as this protocol does. [default: the set's own]
        --alpha A: Threshold for a correct point, as a fraction of the side. [default: 0.05 for
            same-scene, else 0.1]
        --warps N: Number of warped copies of each image. [default: 12 in all]
        --long-sides LIST: Longest sides to try, in pixels. [default: 1/2 to 3/2 of usual]
        --draws LIST: Numbers of noise draws to try.
        --plan: Estimate the cost without loading weights, and stop.
        --exhaustive: Measure the whole grid, for comparison.
        --out FOLDER: Also write preset.json, calibration.json and calibration.png to this folder.
        --use/--no-use: Use the preset for these weights from now on.
        --blocks LIST: Blocks to try, such as 3,5 or 0-8, or all. [default: all]
        --timesteps LIST: Timesteps to try. [default: 12 from 0 to 800]
        --treatment NAME: Try this treatment; may be repeated. [default: the paper's, and every
            installed step]
    """
    from dataclasses import asdict

    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.calibration.grid import CostModel, Grid, check_options
    from kornia_ditf.calibration.picture import draw_calibration
    from kornia_ditf.calibration.plan import plan_calibration
    from kornia_ditf.calibration.result import as_values, grid_values
    from kornia_ditf.calibration.search import TOLERANCE
    from kornia_ditf.calibration.store import add_preset
    from kornia_ditf.datasets.pairs import PairDataset
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.registry.calibrate import make_task, measure_preset
    from kornia_ditf.registry.datasets import load_dataset
    from kornia_ditf.registry.treatments import find_treatment
    from kornia_ditf.utils.files import make_folder
    from kornia_ditf.utils.picture import save_picture

    spec = chosen.but(backbone=backbone, preset="none").spec()
    if not isinstance(spec, BackboneSpec):
        raise InvalidArgumentError(
            f"calibrate needs a Diffusion Transformer, and {spec.name} is not one; choose a "
            "backbone"
        )
    check_options(chosen.others)
    numbers = values.read_numbers
    grid = Grid.of(
        spec,
        blocks=tuple(values.read_blocks(chosen.blocks or "all", spec.blocks)),
        timesteps=numbers("--timesteps", chosen.timesteps, float),
        long_sides=numbers("--long-sides", long_sides, int),
        treatments=tuple(map(find_treatment, chosen.treatment or ())) or _usual_treatments(),
        draws=numbers("--draws", draws, int),
    )
    if (images is None) == (dataset is None):
        raise InvalidArgumentError("name either --images FOLDER or --dataset NAME --root FOLDER")
    scored: Any = images
    if dataset is not None:
        if root is None:
            raise InvalidArgumentError("--dataset needs --root FOLDER, the folder that holds it")
        scored = load_dataset(dataset, root, **({} if split is None else {"split": split}))
        if not isinstance(scored, PairDataset):
            raise InvalidArgumentError(f"calibrate needs pairs of images, and {dataset} has none")
    aim = make_task(
        scored,
        task,
        prompt=chosen.prompt or spec.prompt,
        alpha=alpha,
        seed=chosen.seed or 0,
        warps=warps,
        count=pairs,
        protocol=protocol,
    )
    cost = CostModel(spec.width, spec.pixels_per_token)
    bound = plan_calibration(aim, grid, cost)
    facts = _plan_facts(spec, grid, aim, bound, chosen)
    if plan:
        document = {
            "task": aim.name,
            "criterion": aim.criterion,
            "samples": len(aim.samples),
            "grid": grid_values(grid),
            "plan": asdict(bound),
        }
        output.show(document, facts, as_json=as_json)
        return
    for label, text in facts:
        output.echo(f"{label}: {text}", error=True)
    if out is not None:
        make_folder(out)
    output.echo("scores are kept as they are measured; the same command goes on", error=True)
    given = chosen.but(blocks=None, timesteps=None, treatment=None).read(spec)
    given["source"] = chosen.source
    with StageProgress() as progress:
        preset, found = measure_preset(
            spec,
            aim,
            grid,
            given,
            seed=chosen.seed or 0,
            exhaustive=exhaustive,
            progress=progress,
        )
    document = as_values(preset, found, grid, cost)
    written: list[Path] = []
    if out is not None:
        written = [out / name for name in ("preset.json", "calibration.json", "calibration.png")]
        preset.save(written[0])
        output.write_json(written[1], document)
        save_picture(written[2], draw_calibration(found, cost, f"{spec.name}: {preset.describe()}"))
    rows = [
        *calibrated_facts(preset),
        ("tied", f"within {100 * TOLERANCE:g} points; of tied settings the cheapest is chosen"),
        ("forwards", f"{found.forwards}, {found.flops / 1e12:.3g} TFLOP"),
        ("cost", f"{found.flops / found.grid_flops:.1%} of the whole grid's"),
        *(
            ("refused", f"timestep {each.timestep:g}, {each.long_side} px: {reason}")
            for each, reason in found.failures.items()
        ),
        ("written", ", ".join(map(str, written)) or "none; add --out FOLDER"),
        (
            "used from now on",
            str(add_preset(preset)) if use else "no; `kornia-ditf presets add FILE` keeps it",
        ),
    ]
    output.show(document, rows, as_json=as_json)


def _usual_treatments() -> tuple[str, ...]:
    """List the paper's treatments, and its method followed by each other step that is installed."""
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.registry.treatments import find_treatment, list_treatments
    from kornia_ditf.treatments import TREATMENTS

    found = list(TREATMENTS)
    for name in list_treatments():
        with suppress(InvalidArgumentError):  # it needs numbers
            if name not in ("adaln", "discard", "layernorm"):
                found.append(find_treatment(f"adaln+discard > {name}"))
    return tuple(found)


def _plan_facts(
    spec: BackboneSpec, grid: Grid, task: Task, bound: CalibrationPlan, chosen: options.Chosen
) -> list[tuple[str, str]]:
    from kornia_ditf.errors import DiTFError

    held = "not known before loading"
    dtype = chosen.dtype or ("float32" if chosen.device in (None, "cpu") else "bfloat16")
    try:
        needed = chosen.plan(spec, grid.blocks[-1], dtype)
        if needed is not None:
            held = f"{byte_size(needed.held)} in {dtype}"
    except DiTFError as error:
        held = f"not known: {error}"
    settings = (
        f"{len(grid.blocks)} blocks x {len(grid.timesteps)} timesteps x {len(grid.long_sides)} "
        f"sides x {len(grid.treatments)} treatments x {len(grid.draws)} numbers of draws"
    )
    whole = f"{bound.grid_forwards} forwards, {bound.grid_flops / 1e12:.3g} TFLOP"
    return [
        ("task", f"{task.name}, {len(task.samples)} samples"),
        ("criterion", task.criterion),
        ("grid", f"{settings}: {bound.settings} settings"),
        ("whole grid", whole),
        ("work", f"at most {bound.forwards} forwards, {bound.flops / 1e12:.3g} TFLOP"),
        ("weights held", held),
        ("block inputs held", f"{byte_size(bound.tap_bytes)} at the largest side"),
    ]
