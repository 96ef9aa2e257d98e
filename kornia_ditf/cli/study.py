"""`kornia-ditf study`: plan, run and report a comparative study, or run an ablation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import options, output, results
from kornia_ditf.cli.progress import StageProgress, duration
from kornia_ditf.utils.text import byte_size

if TYPE_CHECKING:
    from kornia_ditf.study.define.spec import Study
    from kornia_ditf.study.run.engines import Engine

app = typer.Typer(
    help="Compare descriptors on data sets: plan, run, report and share studies, or an ablation.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

File = Annotated[
    Path, typer.Argument(parser=options.read_path, metavar="FILE", help="The study, a YAML file.")
]
Out = Annotated[
    Path | None,
    options.path_option("DIR", "The study's folder.  [default: the file's name, `-study`]"),
]
Cache = Annotated[
    Path | None,
    options.path_option("DIR", "Folder for descriptor maps.  [default: inside --out]"),
]
Devices = Annotated[
    str | None,
    options.option(
        "LIST",
        "Devices such as cuda:0,cuda:1 or cpu,cpu, one process each.  "
        "[default: all GPUs, or two CPU processes]",
    ),
]
Log = Annotated[
    list[str] | None,
    options.option(
        "NAME",
        "Log scores and costs to trackio, wandb, mlflow or a plugin's tracker, one run per "
        "configuration; may be repeated.  [default: none]",
    ),
]
Part = Annotated[
    str | None,
    options.option("K/N", "Score part K of N equal parts of the pairs; `study merge` joins them."),
]


@app.command("plan")
def plan(
    file: File,
    out: Out = None,
    devices: Devices = None,
    part: Part = None,
    as_json: options.Json = False,
) -> None:
    """Estimate forward passes, pairs, disk space and time, without loading any weights.

    Lists of pairs and image headers are read. Times are those of an earlier run in --out; otherwise
    the time to describe is estimated by arithmetic, and that to score is measured on random values
    within seconds, for one worker on the first of --devices.
    """
    from dataclasses import asdict

    from kornia_ditf.study.define.parsing import read_study
    from kornia_ditf.study.run.plan import plan_study

    study = read_study(file)
    place = _devices(devices)[0] if devices else None
    planned = plan_study(study, out or Path(f"{file.stem}-study"), device=place, part=_part(part))
    groups = planned.groups
    forwards = sum(group.forwards for group in groups)
    cache_bytes = sum(group.cache_bytes for group in groups)
    document = {
        **asdict(planned),
        "scored": planned.scored,
        "seconds": planned.seconds,
        "forwards": forwards,
        "cache_bytes": cache_bytes,
    }
    rows = [
        {
            "descriptor": group.descriptor,
            "configurations": str(group.configurations),
            "images": str(group.images),
            "forwards": str(group.forwards),
            "cache": byte_size(group.cache_bytes),
            "weights": byte_size(group.weights_bytes),
        }
        for group in groups
    ]
    pairs = ", ".join(f"{count} ({name})" for name, count in planned.pairs.items())
    facts = [
        ("study", f"{study.name}, {planned.configurations} configurations"),
        ("pairs", f"{pairs}; {planned.scored} with every configuration"),
        ("forwards", f"{forwards} noisy images"),
        ("cache", byte_size(cache_bytes)),
        ("time", _time(planned.seconds)),
        *((stage.name, f"{_time(stage.seconds)} ({stage.how})") for stage in planned.stages),
        *(("note", note) for note in planned.notes),
    ]
    output.show(document, output.Table(rows, right=[*rows[0]][1:]), facts, as_json=as_json)


@app.command("run")
@options.documented
def run(
    file: File,
    out: Out = None,
    cache: Cache = None,
    engine: str = "local",
    devices: Devices = None,
    address: options.RayAddress = None,
    workers: int = 2,
    cpus: float = 0.5,
    gpus: float = 0.0,
    part: Part = None,
    report: bool = True,
    log: Log = None,
) -> None:
    """Run a study, or resume one; only missing results are computed.

    Every image is described once for all configurations that share a forward pass. A study may be
    stopped at any time, even by kill -9; the same command resumes it.

    Options:
        --engine NAME: local (this process), processes (one per device), or ray (a cluster).
        --workers N: Number of Ray actors.
        --cpus X: CPUs of each Ray actor; less than 1 shares a core.
        --gpus X: GPUs of each Ray actor.
        --report/--no-report: Also write the report.
    """
    from kornia_ditf.study.define.parsing import read_study

    make, device = _engine(engine, devices, address, workers, cpus, gpus)
    folder, loggers = out or Path(f"{file.stem}-study"), _loggers(log)
    _run(read_study(file), folder, cache, make, device, report, _part(part))
    _log(folder, loggers)


@app.command("report")
def report(
    folder: Annotated[Path, options.path_argument("DIR")],
    log: Log = None,
) -> None:
    """Write the report of a study that has run, or of a bundle.

    It consists of report.html and report.md, the tables as LaTeX (tables.tex) and CSV (scores.csv,
    tests.csv), and references to cite (references.bib).
    """
    from kornia_ditf.study.report.page import write_report

    loggers = _loggers(log)
    for path in write_report(folder):
        output.echo(str(path))
    _log(folder, loggers)


@app.command("ablation")
@options.describing("source", "block", "timestep", "long_side", "ensemble", "dtype", "device")
def ablation(
    backbone: Annotated[str, typer.Argument(metavar="[BACKBONE]")] = "nano",
    dataset: str | None = None,
    root: Path | None = None,
    split: str | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    *,
    chosen: options.Chosen,
    out: Out = None,
    cache: Cache = None,
) -> None:
    """Measure the effect of each step of the method, as in the paper's ablation.

    raw, adaln, adaln+discard and discard+layernorm share one forward pass per image.

    Options:
        --dataset NAME: Data set. [default: the shipped photographs]
        --root FOLDER: The data set's folder.
        --split NAME: Split of the data set.
        --protocol NAME: Protocol that scores the pairs. [default: plain]
        --limit N: Use N pairs, drawn at random.
    """
    from kornia_ditf.study.report.ablation import ablation_study, ablation_table
    from kornia_ditf.study.run.engines import Local

    study = ablation_study(
        backbone,
        dataset=dataset,
        root=root,
        split=split,
        protocol=protocol,
        limit=limit,
        source=chosen.source,
        settings=chosen.read(),
    )
    folder = out or Path(f"{study.name}-study")
    written = _run(study, folder, cache, Local, None, report=True)
    for heading, columns, cells in ablation_table(folder):
        output.echo(heading)
        rows = [dict(zip(columns, row, strict=True)) for row in cells]
        output.print_table(output.Table(rows, right=columns[1:]))
    output.echo(f"more in {written}")


for _command in (results.merge, results.compare, results.bundle, results.leaderboard):
    app.command(_command.__name__)(_command)


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
    """Load trackers before the work, so that a missing one is reported at once."""
    from kornia_ditf.registry.loggers import load_logger

    return {name: load_logger(name) for name in names or ()}


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


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)
