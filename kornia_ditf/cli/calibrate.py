"""`kornia-ditf calibrate`: find a backbone's setting by measuring, and use it from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import options, output, values
from kornia_ditf.cli.progress import StageProgress

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.calibration.grid import CostModel, Grid
    from kornia_ditf.calibration.plan import CalibrationPlan
    from kornia_ditf.calibration.preset import Preset
    from kornia_ditf.calibration.samples import Task
    from kornia_ditf.calibration.search import Calibration


def _list_option(help_text: str) -> Any:
    return typer.Option(metavar="LIST", help=help_text)


_Treatments = Annotated[
    list[str] | None,
    typer.Option(
        "--treatment",
        metavar="NAME",
        help="Try this treatment; may be repeated.  [default: the paper's, and each step that is "
        "installed]",
    ),
]


@options.describing(
    *("backbone", "block", "timestep", "facet", "tiles", "upsample"),
    *("long_side", "ensemble", "preset", "projection"),
    blocks=Annotated[
        str | None, _list_option("Blocks to try, such as 3,5 or 0-8, or all.  [default: all]")
    ],
    timesteps=Annotated[str | None, _list_option("Timesteps to try.  [default: 12 from 0 to 800]")],
    treatment=_Treatments,
)
def calibrate(
    backbone: Annotated[str, typer.Argument(metavar="NAME|FOLDER", show_default=False)],
    images: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path,
            metavar="FOLDER",
            help="Calibrate on these images, without labels.",
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of --images: same-scene (warped copies), or semantic (all show one kind of "
            "object).",
        ),
    ] = "same-scene",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Calibrate on the labels of this data set (`kornia-ditf datasets` lists them).",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path, metavar="FOLDER", help="The folder that holds the data set."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data set.")] = None,
    pairs: Annotated[
        int | None, typer.Option(metavar="N", help="Take so many pairs of it, drawn at random.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Score as this protocol does.  [default: the set's own]"),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="How far off a point may be, as a part of the side.  [default: 0.05 for "
            "same-scene, else 0.1]",
        ),
    ] = None,
    warps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Warped copies of each image.  [default: 12 in all]"),
    ] = None,
    long_sides: Annotated[
        str | None, _list_option("Longest sides to try, in pixels.  [default: 1/2 to 3/2 of usual]")
    ] = None,
    draws: Annotated[str, _list_option("Numbers of noise draws to try.")] = "1,2,4,8",
    *,
    chosen: options.Chosen,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would take, load nothing, and stop.")
    ] = False,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Measure the whole grid, for comparison.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path,
            metavar="FOLDER",
            help="Write preset.json, calibration.json and calibration.png here too.",
        ),
    ] = None,
    use: Annotated[bool, typer.Option(help="Use the preset for these weights from now on.")] = True,
    as_json: options.Json = False,
) -> None:
    """Find block, timestep, longest side, treatment and noise draws of a backbone by measuring.

    With --images no labels are needed: points are found again in warped and relit copies of each
    image (same-scene), or followed over another image of the kind (semantic). Scores are kept as
    they are measured: after an interruption, the same command goes on.
    """
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.calibration.grid import CostModel, check_options
    from kornia_ditf.calibration.measure import Measurer, Records
    from kornia_ditf.calibration.plan import plan_calibration
    from kornia_ditf.calibration.result import identify, make_preset, records_file
    from kornia_ditf.calibration.search import calibrate as search
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.loading.checkpoint import hub_options
    from kornia_ditf.utils.files import make_folder

    seed = chosen.seed or 0
    spec = chosen.but(backbone=backbone, preset="none").spec()
    if not isinstance(spec, BackboneSpec):
        raise InvalidArgumentError(
            f"calibrate chooses a block of a Diffusion Transformer, and {spec.name} is none; name "
            "a backbone"
        )
    check_options(values.read_others(chosen.others))
    grid = _read_grid(spec, chosen, long_sides, draws)
    if (images is None) == (dataset is None):
        raise InvalidArgumentError("name either --images FOLDER or --dataset NAME --root FOLDER")
    if images is not None:
        aim = _task_of_images(task, images, warps, alpha, seed)
    else:
        aim = _task_of_dataset(
            str(dataset),
            root,
            split,
            pairs,
            protocol,
            alpha,
            chosen.prompt or spec.prompt,
            seed or 0,
        )
    cost = CostModel(spec.width, spec.pixels_per_token)
    bound = plan_calibration(aim, grid, cost)
    facts = _plan_facts(spec, grid, aim, bound, chosen)
    if plan:
        output.show(
            output.Result(_plan_values(grid, aim, bound), [output.Facts(facts)]), as_json=as_json
        )
        return
    for label, text in facts:
        output.echo(f"{label}: {text}", error=True)
    if out is not None:
        make_folder(out)
    told = chosen.prompt if chosen.prompt is None else chosen.prompt.replace("{label}", "")
    own = chosen.but(prompt=told, preset="none", blocks=None, timesteps=None, treatment=None)
    ditf = own.load_ditf(spec, reach=grid.blocks[-1])
    records = Records(records_file(ditf))
    output.echo(f"scores are kept in {records.path}; the same command goes on", error=True)
    with StageProgress() as progress:
        found = search(
            Measurer(ditf, records),
            aim,
            grid,
            seed=seed,
            exhaustive=exhaustive,
            progress=progress,
        )
    hub = hub_options(values.read_others(chosen.others))
    preset = make_preset(identify(spec, chosen.source, ditf, hub), spec, ditf, aim, found)
    _finish(spec, preset, found, cost, grid, aim, out, use, as_json)


def _finish(
    spec: BackboneSpec,
    preset: Preset,
    found: Calibration,
    cost: CostModel,
    grid: Grid,
    task: Task,
    out: Path | None,
    use: bool,
    as_json: bool,
) -> None:
    from dataclasses import astuple

    from kornia_ditf.calibration.picture import draw_calibration
    from kornia_ditf.calibration.result import as_values
    from kornia_ditf.calibration.search import TOLERANCE
    from kornia_ditf.calibration.store import add_preset
    from kornia_ditf.utils.picture import save_picture

    document = as_values(preset, found, grid, cost)
    written: list[Path] = []
    if out is not None:
        written = [out / name for name in ("preset.json", "calibration.json", "calibration.png")]
        preset.save(written[0])
        output.write_json(written[1], document)
        save_picture(written[2], draw_calibration(found, cost, f"{spec.name}: {preset.describe()}"))
    kept = str(add_preset(preset)) if use else "no; `kornia-ditf presets add FILE` keeps it"
    cell = found.cell
    channels = "none" if not found.channels else ", ".join(map(str, found.channels))
    refused = [f"timestep {f.timestep:g}, {f.long_side} px: {r}" for f, r in found.failures.items()]
    score, low, high = (f"{100 * value:.1f}" for value in astuple(found.score))
    share = found.flops / found.grid_flops
    sure = f"in {found.certainty:.0%} of resamples; of tied settings the cheapest is chosen"
    facts = [
        ("task", task.name),
        ("criterion", task.criterion),
        ("block", f"{cell.block} (of 0 to {spec.blocks - 1})"),
        ("timestep", f"{cell.timestep:g}"),
        ("long side", f"{cell.long_side} px"),
        ("noise draws", str(cell.draws)),
        ("treatment", cell.treatment),
        ("discarded", channels if found.channels is not None else "the treatment discards none"),
        ("score", f"{score} % (95 % interval {low} to {high}) on {found.samples} samples"),
        ("certainty", f"best, or tied within {100 * TOLERANCE:g} points, {sure}"),
        ("forwards", f"{found.forwards}, {found.flops / 1e12:.3g} TFLOP"),
        ("cost", f"{share:.1%} of the whole grid's"),
        *(("refused", reason) for reason in refused),
        ("written", ", ".join(map(str, written)) or "none; add --out FOLDER"),
        ("used from now on", kept),
    ]
    output.show(output.Result(document, [output.Facts(facts)]), as_json=as_json)


def _read_grid(
    spec: BackboneSpec, chosen: options.Chosen, long_sides: str | None, draws: str
) -> Grid:
    from kornia_ditf.calibration.grid import Grid
    from kornia_ditf.registry.treatments import find_treatment

    treatments = [find_treatment(each) for each in chosen.treatment or ()]

    def numbers(option: str, text: str | None, kind: Callable[[str], float]) -> Any:
        return None if text is None else values.read_numbers(option, text, kind)

    return Grid.of(
        spec,
        blocks=tuple(values.read_blocks(chosen.blocks or "all", spec.blocks)),
        timesteps=numbers("--timesteps", chosen.timesteps, float),
        long_sides=numbers("--long-sides", long_sides, int),
        treatments=tuple(treatments) or _usual_treatments(),
        draws=numbers("--draws", draws, int),
    )


def _usual_treatments() -> tuple[str, ...]:
    """List the paper's treatments, and its method followed by each other step that is installed."""
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.registry.treatments import find_treatment, list_treatments
    from kornia_ditf.treatments import TREATMENTS

    found = list(TREATMENTS)
    for name in list_treatments():
        try:
            treatment = find_treatment(f"adaln+discard > {name}")
        except InvalidArgumentError:  # it needs numbers
            continue
        if name not in ("adaln", "discard", "layernorm"):
            found.append(treatment)
    return tuple(found)


def _task_of_images(
    name: str, folder: Path, warps: int | None, alpha: float | None, seed: int
) -> Task:
    from kornia_ditf.calibration import samples
    from kornia_ditf.datasets.files import list_images
    from kornia_ditf.utils.checks import check_one_of

    check_one_of("--task", name, ("same-scene", "semantic"))
    images = list_images(folder)
    if name == "same-scene":
        reach = samples.SAME_SCENE_ALPHA if alpha is None else alpha
        return samples.same_scene(images, warps=warps, alpha=reach, seed=seed)
    return samples.semantic(
        images, alpha=samples.SEMANTIC_ALPHA if alpha is None else alpha, seed=seed
    )


def _task_of_dataset(
    name: str,
    root: Path | None,
    split: str | None,
    pairs: int | None,
    protocol: str | None,
    alpha: float | None,
    prompt: str,
    seed: int,
) -> Task:
    from kornia_ditf.calibration.samples import labelled
    from kornia_ditf.datasets.pairs import PairDataset
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.registry.datasets import load_dataset

    if root is None:
        raise InvalidArgumentError("--dataset needs --root FOLDER, the folder that holds it")
    data = load_dataset(name, root, **({} if split is None else {"split": split}))
    if not isinstance(data, PairDataset):
        raise InvalidArgumentError(f"calibrate scores pairs of images, and {name} holds others")
    return labelled(
        data,
        count=pairs,
        protocol=protocol,
        alpha=alpha,
        prompt=prompt,
        seed=seed,
    )


def _plan_facts(
    spec: BackboneSpec, grid: Grid, task: Task, bound: CalibrationPlan, chosen: options.Chosen
) -> list[tuple[str, str]]:
    from kornia_ditf.errors import DiTFError
    from kornia_ditf.utils.checks import read_dtype

    held = "not known before loading"
    if spec.plan is not None:
        usual = "float32" if chosen.device in (None, "cpu") else "bfloat16"
        dtype = chosen.dtype or usual
        try:
            place = chosen.source or spec.repo
            needed = spec.plan(
                place,
                block=grid.blocks[-1],
                dtype=read_dtype(dtype),
                architecture=spec.architecture,
            )
            held = f"{needed.held / 1e9:.2f} GB in {dtype}"
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
        ("block inputs held", f"{bound.tap_bytes / 1e9:.2g} GB at the largest side"),
    ]


def _plan_values(grid: Grid, task: Task, bound: CalibrationPlan) -> dict[str, Any]:
    from dataclasses import asdict

    from kornia_ditf.calibration.result import grid_values

    return {
        "task": task.name,
        "criterion": task.criterion,
        "samples": len(task.samples),
        "grid": grid_values(grid),
        "plan": asdict(bound),
    }
