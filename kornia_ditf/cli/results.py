"""`kornia-ditf study merge`, `compare`, `bundle` and `leaderboard`: results that travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kornia_ditf.cli import options, output


@options.documented
def merge(
    folders: Annotated[list[Path], options.path_argument("DIR...")],
    out: Path,
) -> None:
    """Merge finished studies, or bundles, and write one report with one set of tests.

    They may contain different descriptors on the same pairs, different data sets, or the parts of a
    study split by pairs (`study run --part`). Any other difference is an error that names it.

    Options:
        --out DIR: Folder of the merged study.
    """
    from kornia_ditf.study.report.page import write_report
    from kornia_ditf.study.share.merge import merge_studies

    merge_studies(folders, out)
    for path in write_report(out):
        output.echo(str(path))


@options.documented
def compare(
    a: Annotated[Path, options.path_argument("A")],
    b: Annotated[Path, options.path_argument("B")],
    html: Path | None = None,
    as_json: options.Json = False,
) -> None:
    """Compare two finished studies, or bundles, cell by cell on the same pairs.

    Differences come with intervals and paired tests, and with all differing settings, versions and
    hardware. Use it to compare commits, devices or dtypes.

    Options:
        --html FILE: Also write an HTML page.
    """
    from dataclasses import asdict

    from kornia_ditf.study.share.compare import compare_studies, comparison_page
    from kornia_ditf.utils.files import atomic_write

    found = compare_studies(a, b)
    if html is not None:
        with atomic_write(html) as temporary:
            temporary.write_text(comparison_page(found, str(a), str(b)), "utf-8")
    rows = [
        {
            "descriptor": each.descriptor,
            "data set": each.dataset,
            "protocol": each.protocol,
            "score": each.score,
            "A": f"{100 * each.a:.1f}",
            "B": f"{100 * each.b:.1f}",
            "B-A": f"{100 * each.difference.value:.1f}",
            "interval": f"{100 * each.difference.low:.1f} to {100 * each.difference.high:.1f}",
            "p": f"{each.corrected:.4f}",
        }
        for each in found.cells
    ]
    output.show(
        asdict(found),
        output.Table(rows, right=("A", "B", "B-A", "interval", "p")),
        f"in %; p corrected by Holm for {len(rows)} cells",
        *(f"not compared: {sentence}" for sentence in found.left_out),
        *(f"differs: {name} is {a} in A and {b} in B" for name, a, b in found.settings),
        as_json=as_json,
    )


@options.documented
def bundle(
    folder: Annotated[Path, options.path_argument("DIR")],
    out: Path = Path("bundles"),
) -> None:
    """Export a study's results as a folder to share, named by a digest of its content.

    It contains records.parquet and study.json, without descriptor maps, images or local paths;
    `study merge`, `compare`, `report` and `leaderboard` accept it.

    Options:
        --out DIR: Folder to write the bundle into.
    """
    from kornia_ditf.study.share.bundle import bundle_study

    output.echo(str(bundle_study(folder, out)))


@options.documented
def leaderboard(
    bundles: Annotated[Path, options.path_argument("BUNDLES")],
    out: Path = Path("leaderboard"),
    push: str | None = None,
) -> None:
    """Create a leaderboard from a folder of bundles: one HTML page that needs no server.

    Damaged bundles and other folders are skipped and reported, on the page too.

    Options:
        --out DIR: Folder of the page.
        --push USER/NAME: Upload page and bundles to this data set repository of the Hugging Face
            Hub.
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
