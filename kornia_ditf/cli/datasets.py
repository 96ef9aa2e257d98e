"""`kornia-ditf datasets`: list the data sets that can be read, or check a copy of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from kornia_ditf.datasets.checking import CheckReport
    from kornia_ditf.datasets.spec import DatasetSpec

_SHOWN = 20


def list_installed(as_json: options.Json = False) -> None:
    """List the data sets that can be read, their layouts, and how to get them."""
    from kornia_ditf.registry.datasets import list_datasets

    specs = list_datasets().values()
    if as_json:
        names = ("name", "folder", "layout", "splits", "source", "license")
        rows = [{name: getattr(spec, name) for name in names} for spec in specs]
        output.print_json({"datasets": rows})
        return
    for spec in specs:
        output.print_facts(
            [
                (spec.name, f"{spec.folder}/" if spec.folder else "any folder"),
                ("  splits", ", ".join(spec.splits)),
                ("  layout", spec.layout),
                ("  source", spec.source),
                ("  licence", spec.license),
            ]
        )
        output.echo("")


app = options.listing("List the data sets that can be read, or check one.", list_installed)


@app.command("check")
def check(
    path: Annotated[Path, options.path_argument("PATH")],
    dataset: Annotated[
        str | None, options.option("NAME", "Which data set it is.  [default: as its layout says]")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Decode every image as well.")
    ] = True,
    as_json: options.Json = False,
) -> None:
    """Read everything in a copy of a data set: count it, and name every defect.

    PATH is the data set's folder or the one that holds it.
    """
    from kornia_ditf.cli import failures, progress
    from kornia_ditf.datasets.checking import as_values, check_dataset

    spec = _find(path, dataset)
    with progress.bars(transient=True) as bars:

        def track(label: str, total: int) -> Callable[[], None]:
            task = bars.add_task(label, total=total)
            return lambda: bars.advance(task)

        report = check_dataset(spec, path, images=images, track=track)
    if as_json:
        output.print_json(as_values(report))
    else:
        _show(report, images)
    if report.defects:
        raise failures.fail(
            f"{path}: {_count(len(report.defects))} in this copy of {spec.name}",
            failures.INCOMPLETE,
        )


def _find(path: Path, name: str | None) -> DatasetSpec:
    from kornia_ditf.datasets.checking import recognise
    from kornia_ditf.errors import DatasetError
    from kornia_ditf.registry.datasets import find_dataset, list_datasets

    if name is not None:
        return find_dataset(name)
    if not path.is_dir():
        raise DatasetError(path, "there is no such folder")
    found = recognise(path, list_datasets().values())
    if found is None:
        raise DatasetError(
            path,
            "it has the layout of no known data set; name one with --dataset "
            f"({', '.join(list_datasets())})",
        )
    return found


def _show(report: CheckReport, images: bool) -> None:

    things = ("sequences", "objects") if report.dataset == "davis-2017" else ("pairs", "points")
    decoded = "" if images else " (not decoded)"
    output.print_facts(
        [
            ("data set", report.dataset),
            ("folder", report.root),
            ("images", f"{report.images}{decoded}"),
        ]
    )
    output.echo("")
    rows = [
        (each.split, str(each.pairs), str(each.points), str(len(each.categories)))
        for each in report.splits
    ]
    output.print_table(("split", *things, "categories"), rows, right=(*things, "categories"))
    if not report.defects:
        output.echo("\nno defects")
        return
    output.echo("")
    for defect in report.defects[:_SHOWN]:
        output.echo(f"{defect.file}: {defect.reason}")
    if len(report.defects) > _SHOWN:
        output.echo(f"... and {len(report.defects) - _SHOWN} more; --json lists all")


def _count(defects: int) -> str:
    return "1 defect" if defects == 1 else f"{defects} defects"
