"""`kornia-ditf study`: plan, run and report a comparative study, or run an ablation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import options, output
from kornia_ditf.cli.progress import StageProgress, duration

if TYPE_CHECKING:
    from kornia_ditf.study.define.spec import Study
    from kornia_ditf.study.run.engines import Engine
    from kornia_ditf.study.run.plan import StudyPlan

app = typer.Typer(
    help="Compare descriptors on data sets: plan, run and report a study, or an ablation.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

File = Annotated[
    Path, typer.Argument(parser=options.read_path, metavar="FILE", help="The study, a YAML file.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=options.read_path,
        metavar="DIR",
        help="The study's folder.  [default: the file's name, `-study`]",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        parser=options.read_path,
        metavar="DIR",
        help="Keep descriptor maps here.  [default: inside --out]",
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="local (this process), processes (one per device), or ray (a cluster).",
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Devices such as cuda:0,cuda:1 or cpu,cpu, one process each.  "
        "[default: all GPUs, or two CPU processes]",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Of the Ray cluster.  [default: start one here]"),
]
Workers = Annotated[int, typer.Option(metavar="N", help="Ray actors.")]
Cpus = Annotated[float, typer.Option(metavar="X", help="CPUs of each Ray actor; 0.5 is fine.")]
Gpus = Annotated[float, typer.Option(metavar="X", help="GPUs of each Ray actor.")]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="NAME",
        help="Log scores and costs to trackio, wandb, mlflow or a plugin's tracker, a run for "
        "each configuration; may be repeated.  [default: none]",
    ),
]
WithReport = Annotated[bool, typer.Option("--report/--no-report", help="Write the report, too.")]


@app.command("plan")
def plan(file: File, out: Out = None, as_json: options.Json = False) -> None:
    """Estimate forward passes, pairs, disk space and time, without loading any weights.

    Lists of pairs and the headers of images are read. Times are measured ones where the study ran
    before in --out, and rough arithmetic otherwise.
    """
    from kornia_ditf.study.define.parsing import read_study
    from kornia_ditf.study.run.plan import plan_study

    study = read_study(file)
    planned = plan_study(study, out or _default_out(file))
    if as_json:
        output.print_json(_plan_values(planned))
    else:
        _print_plan(study, planned)


@app.command("run")
def run(
    file: File,
    out: Out = None,
    cache: Cache = None,
    engine: EngineName = "local",
    devices: Devices = None,
    address: Address = None,
    workers: Workers = 2,
    cpus: Cpus = 0.5,
    gpus: Gpus = 0.0,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Score one of N equal parts of the pairs; `study merge` joins them.",
        ),
    ] = None,
    report: WithReport = True,
    log: Log = None,
) -> None:
    """Run a study, or resume one that was stopped; only what is missing is computed.

    Every image is described once for all configurations that one forward pass serves. It may be
    stopped at any instant, also by kill -9; type the same command to go on.
    """
    from kornia_ditf.study.define.parsing import read_study

    make, device = _engine(engine, devices, address, workers, cpus, gpus)
    folder, loggers = out or _default_out(file), _loggers(log)
    _run(read_study(file), folder, cache, make, device, report, _part(part))
    _log(folder, loggers)


@app.command("report")
def report(
    folder: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="DIR", show_default=False)
    ],
    log: Log = None,
) -> None:
    """Write the report of a study that has run, or of a bundle.

    report.html and report.md; the tables as LaTeX (tables.tex) and CSV (scores.csv, tests.csv);
    and what to cite (references.bib).
    """
    from kornia_ditf.study.report.page import write_report

    loggers = _loggers(log)
    for path in write_report(folder):
        output.echo(str(path))
    _log(folder, loggers)


@app.command("merge")
def merge(
    folders: Annotated[
        list[Path], typer.Argument(parser=options.read_path, metavar="DIR...", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(parser=options.read_path, metavar="DIR", help="Folder of the merged study."),
    ],
) -> None:
    """Merge finished studies, or bundles, and write one report with one set of tests.

    They may hold other descriptors on the same pairs, other data sets, or the other parts of a
    study that was split by pairs (`study run --part`). What differs otherwise is named and refused.
    """
    from kornia_ditf.study.report.page import write_report
    from kornia_ditf.study.share.merge import merge_studies

    merge_studies(folders, out)
    for path in write_report(out):
        output.echo(str(path))


@app.command("compare")
def compare(
    a: Annotated[Path, typer.Argument(parser=options.read_path, metavar="A", show_default=False)],
    b: Annotated[Path, typer.Argument(parser=options.read_path, metavar="B", show_default=False)],
    html: Annotated[
        Path | None,
        typer.Option(parser=options.read_path, metavar="FILE", help="Write a page, too."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare two finished studies, or bundles, cell by cell on the same pairs.

    Differences come with intervals and paired tests, and with what else differs: settings,
    versions, hardware. A study of another commit, device or dtype is told from its like so.
    """
    from dataclasses import asdict

    from kornia_ditf.study.share.compare import compare_studies, comparison_page
    from kornia_ditf.utils.files import atomic_write

    found = compare_studies(a, b)
    if html is not None:
        with atomic_write(html) as temporary:
            temporary.write_text(comparison_page(found, str(a), str(b)), "utf-8")
    if as_json:
        output.print_json(asdict(found))
        return
    rows = [
        (
            *(each.descriptor, each.dataset, each.protocol, each.score),
            *(f"{100 * value:.1f}" for value in (each.a, each.b, each.difference.value)),
            f"{100 * each.difference.low:.1f} to {100 * each.difference.high:.1f}",
            f"{each.corrected:.4f}",
        )
        for each in found.cells
    ]
    columns = ("descriptor", "data set", "protocol", "score", "A", "B", "B-A", "interval", "p")
    output.print_table(columns, rows, right=columns[4:])
    output.echo(f"in %; p corrected by Holm for {len(rows)} cells")
    for sentence in found.left_out:
        output.echo(f"not compared: {sentence}")
    for name, left, right in found.settings:
        output.echo(f"differs: {name} is {left} in A and {right} in B")


@app.command("bundle")
def bundle(
    folder: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="DIR", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(parser=options.read_path, metavar="DIR", help="Folder of bundles.")
    ] = Path("bundles"),
) -> None:
    """Export a study's results as a folder named by its content, to be given to others.

    It holds records.parquet and study.json, without descriptor maps, images, or paths of this
    machine; `study merge`, `compare`, `report` and `leaderboard` take it.
    """
    from kornia_ditf.study.share.bundle import bundle_study

    output.echo(str(bundle_study(folder, out)))


@app.command("leaderboard")
def leaderboard(
    bundles: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="BUNDLES", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(parser=options.read_path, metavar="DIR", help="Folder of the page.")
    ] = Path("leaderboard"),
    push: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME",
            help="Upload page and bundles to this data set repository of the Hugging Face Hub.",
        ),
    ] = None,
) -> None:
    """Make a leaderboard of a folder of bundles: one page that works from a file.

    A bundle that is damaged or no bundle is left out and named, on the page too.
    """
    from kornia_ditf.study.share.hub import push_leaderboard
    from kornia_ditf.study.share.leaderboard import collect_bundles, write_leaderboard

    collected = collect_bundles(bundles)
    for sentence in collected.left_out:
        output.echo(f"warning: {sentence}", error=True)
    for path in write_leaderboard(collected, out):
        output.echo(str(path))
    if push is not None:
        output.echo(push_leaderboard(collected, out, push))


@app.command("ablation")
def ablation(
    backbone: Annotated[str, typer.Argument(metavar="[BACKBONE]")] = "nano",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A data set.  [default: the photographs that come along]"
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(parser=options.read_path, metavar="FOLDER", help="The data set's folder."),
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Of the data set.")] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="NAME", help="How pairs are scored.  [default: plain]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Draw so many of the pairs.")
    ] = None,
    source: options.Source = None,
    block: options.Block = None,
    timestep: options.Timestep = None,
    long_side: options.LongSide = None,
    ensemble: options.Ensemble = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    out: Out = None,
    cache: Cache = None,
) -> None:
    """Show what each step of the method is worth, as the paper's ablation does.

    raw, adaln, adaln+discard and discard+layernorm share one forward pass per image.
    """
    from kornia_ditf.study.report.ablation import ablation_study, ablation_table
    from kornia_ditf.study.run.engines import Local

    given = {
        "block": block,
        "timestep": timestep,
        "long_side": long_side,
        "ensemble": ensemble,
        "dtype": dtype,
        "device": device,
    }
    study = ablation_study(
        backbone,
        dataset=dataset,
        root=root,
        split=split,
        protocol=protocol,
        limit=limit,
        source=source,
        settings={key: value for key, value in given.items() if value is not None},
    )
    folder = out or Path(f"{study.name}-study")
    written = _run(study, folder, cache, Local, None, report=True)
    for heading, columns, rows in ablation_table(folder):
        output.echo(heading)
        output.print_table(columns, rows, right=columns[1:])
    output.echo(f"more in {written}")


def _run(
    study: Study,
    folder: Path,
    cache: Path | None,
    make: Callable[..., Engine],
    device: str | None,
    report: bool,
    part: tuple[int, int] | None = None,
) -> Path:
    from kornia_ditf.study.report.page import write_report
    from kornia_ditf.study.run.runner import run_study

    with StageProgress() as watcher:
        records = run_study(
            study, folder, cache=cache, engine=make, device=device, watcher=watcher, part=part
        )
    output.echo(str(records), error=True)
    if not report:
        return records
    page = write_report(folder)[0]
    output.echo(str(page), error=True)
    return page


def _loggers(names: list[str] | None) -> dict[str, Any]:
    """Load trackers before the work, so that one that is missing is told at once."""
    if not names:
        return {}
    from kornia_ditf.registry.loggers import load_logger

    return {name: load_logger(name) for name in names}


def _log(folder: Path, loggers: dict[str, Any]) -> None:
    if loggers:
        from kornia_ditf.study.share.logging import log_study

        log_study(folder, loggers)


def _part(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    from kornia_ditf.errors import InvalidArgumentError

    number, _, count = given.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise InvalidArgumentError(f"--part must be K/N, such as 1/2, got {given!r}")
    return int(number), int(count)


def _engine(
    name: str,
    devices: str | None,
    address: str | None,
    workers: int,
    cpus: float,
    gpus: float,
) -> tuple[Callable[..., Engine], str | None]:
    from functools import partial

    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.study.run import engines
    from kornia_ditf.study.run.ray_cluster import RayCluster

    if name == "local":
        places = _devices(devices) if devices else [None]
        if len(places) > 1:
            raise InvalidArgumentError("--engine local has one device; use --engine processes")
        return partial(engines.Local, device=places[0]), places[0]
    if name == "processes":
        places = _devices(devices) if devices else engines.default_devices()
        return partial(engines.Processes, devices=places), places[0]
    if name == "ray":
        if workers < 1 or cpus < 0 or gpus < 0:
            raise InvalidArgumentError("--workers must be 1 or more, --cpus and --gpus 0 or more")
        make = partial(RayCluster, address=address, workers=workers, cpus=cpus, gpus=gpus)
        return make, "cuda" if gpus else None
    raise InvalidArgumentError(f"--engine must be local, processes or ray, got {name!r}")


def _devices(given: str) -> list[Any]:
    from kornia_ditf.utils.checks import read_device

    return [str(read_device(each.strip())) for each in given.split(",")]


def _default_out(file: Path) -> Path:
    return Path(f"{file.stem}-study")


def _print_plan(study: Study, planned: StudyPlan) -> None:

    rows = [
        (
            group.descriptor,
            str(group.configurations),
            str(group.images),
            str(group.forwards),
            f"{group.cache_bytes / 1e9:.2f}",
            "?" if group.weights_bytes is None else f"{group.weights_bytes / 1e9:.2f}",
        )
        for group in planned.groups
    ]
    columns = ("descriptor", "configurations", "images", "forwards", "cache GB", "weights GB")
    output.print_table(columns, rows, right=columns[1:])
    output.echo("")
    source = "measured by an earlier run" if planned.measured else "rough, by arithmetic"
    total = "unknown" if planned.seconds is None else f"{duration(planned.seconds)} ({source})"
    pairs = ", ".join(f"{count} ({name})" for name, count in planned.pairs.items())
    output.print_facts(
        [
            ("study", f"{study.name}, {planned.configurations} configurations"),
            ("pairs", f"{pairs}; {planned.scored} with every configuration"),
            ("forwards", f"{sum(g.forwards for g in planned.groups)} noisy images"),
            ("cache", f"{sum(g.cache_bytes for g in planned.groups) / 1e9:.2f} GB"),
            ("time", total),
            *(("note", note) for note in planned.notes),
        ]
    )


def _plan_values(planned: StudyPlan) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(planned),
        "scored": planned.scored,
        "forwards": sum(group.forwards for group in planned.groups),
        "cache_bytes": sum(group.cache_bytes for group in planned.groups),
    }
