"""`kornia-ditf datasets`: list the data sets that can be read, or check a copy of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from kornia_ditf.datasets.checking import CheckReport
    from kornia_ditf.datasets.spec import DatasetSpec

_SHOWN = 20


def list_installed(as_json: options.Json = False) -> None:
    """List the data sets that can be read, their layouts, and how to get them."""
    from kornia_ditf.registry.datasets import list_datasets

    specs = list_datasets().values()
    names = ("name", "folder", "layout", "splits", "source", "license")
    text = [
        [
            (spec.name, f"{spec.folder}/" if spec.folder else "any folder"),
            ("  splits", ", ".join(spec.splits)),
            ("  layout", spec.layout),
            ("  source", spec.source),
            ("  licence", spec.license),
        ]
        for spec in specs
    ]
    rows = [{name: getattr(spec, name) for name in names} for spec in specs]
    output.show({"datasets": rows}, *text, as_json=as_json)


app = options.listing("List the data sets that can be read, or check one.", list_installed)


@app.command("check")
@options.documented
def check(
    path: Annotated[Path, options.path_argument("PATH")],
    dataset: str | None = None,
    images: bool = True,
    as_json: options.Json = False,
) -> None:
    """Read a whole copy of a data set, count its contents and report every defect.

    PATH is the data set's folder or the one that holds it.

    Options:
        --dataset NAME: Name of the data set. [default: recognised by its layout]
        --images/--no-images: Also decode every image.
    """
    from kornia_ditf.cli import failures, progress
    from kornia_ditf.datasets.checking import check_dataset

    spec = _find(path, dataset)
    with progress.bars(transient=True) as bars:

        def track(label: str, total: int) -> Callable[[], None]:
            task = bars.add_task(label, total=total)
            return lambda: bars.advance(task)

        report = check_dataset(spec, path, images=images, track=track)
    output.show(asdict(report), *_text(report, images), as_json=as_json)
    if report.defects:
        count = len(report.defects)
        defects = f"{count} defect{'' if count == 1 else 's'}"
        raise failures.fail(f"{path}: {defects} in this copy of {spec.name}", failures.INCOMPLETE)


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
            "its layout is not that of a known data set; choose one with --dataset "
            f"({', '.join(list_datasets())})",
        )
    return found


def _text(report: CheckReport, images: bool) -> Iterator[output.Paragraph]:
    things = ("sequences", "objects") if report.dataset == "davis-2017" else ("pairs", "points")
    decoded = "" if images else " (not decoded)"
    yield [
        ("data set", report.dataset),
        ("folder", report.root),
        ("images", f"{report.images}{decoded}"),
    ]
    rows = [
        {
            "split": each.split,
            things[0]: str(each.pairs),
            things[1]: str(each.points),
            "categories": str(len(each.categories)),
        }
        for each in report.splits
    ]
    yield output.Table(rows, right=(*things, "categories"))
    yield ""
    if not report.defects:
        yield "no defects"
    for defect in report.defects[:_SHOWN]:
        yield f"{defect.file}: {defect.reason}"
    if len(report.defects) > _SHOWN:
        yield f"... and {len(report.defects) - _SHOWN} more; --json lists all"
