"""`kornia-ditf match-folder`: the images of a folder, matched for Structure from Motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import failures, options, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kornia_ditf.sfm.folder import FolderMatches
    from kornia_ditf.types import Matches

Exports = Annotated[
    list[Path] | None,
    typer.Option(
        "--export",
        parser=options.read_path,
        metavar="FILE",
        help="Write the matches for another tool: a COLMAP database (.db), hloc's features and "
        "matches (.h5), .npz or .json; may be repeated.",
    ),
]
OneCamera = Annotated[
    bool,
    typer.Option("--one-camera", help="In a COLMAP database, images of one size share one camera."),
]


def match_folder(
    folder: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="FOLDER", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=options.read_path,
            metavar="FOLDER",
            help="Keep finished pairs here, so that the same command goes on where one ended; it "
            "is made if needed.",
        ),
    ],
    export: Exports = None,
    pairs: Annotated[
        str,
        typer.Option(
            metavar="KIND|FILE",
            help="Match all pairs, each image with the next ones ('sequential') or with those "
            "most like it ('retrieval'), or the pairs in a file, two names in each line.",
        ),
    ] = "all",
    count: Annotated[
        int,
        typer.Option(metavar="N", help="With so many images, for sequential and retrieval."),
    ] = 10,
    matcher: Annotated[
        str,
        typer.Option(
            "--matcher",
            "-m",
            "--backbone",
            "--descriptor",
            "-b",
            metavar="NAME",
            help="A descriptor (`kornia-ditf backbones` lists them), whose tokens are matched, or "
            "another matcher (`kornia-ditf matchers`).",
        ),
    ] = "nano",
    long_side: options.LongSide = None,
    tiles: options.Tiles = None,
    upsample: options.Upsample = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    others: options.Others = None,
    threshold: Annotated[
        float,
        typer.Option(metavar="PX", help="Largest distance of an inlier to its epipolar line."),
    ] = 4.0,
    min_inliers: Annotated[
        int, typer.Option(metavar="N", help="Leave out pairs with fewer inliers.")
    ] = 15,
    min_share: Annotated[
        float,
        typer.Option(
            metavar="S", min=0, max=1, help="Leave out pairs with a smaller share of inliers."
        ),
    ] = 0.25,
    cell: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            help="Merge the points of an image that lie in one cell of this size into one "
            "keypoint.  [default: a quarter of a token; 1 where no tokens are matched]",
        ),
    ] = None,
    one_camera: OneCamera = False,
    as_json: options.Json = False,
) -> None:
    """Match the images of a folder, and write the matches for COLMAP, hloc and others.

    Each pair is matched and verified by a fundamental matrix. The points that an image has in its
    pairs are merged, so that tracks go through many images. An image that cannot be used is named
    and left out, and the exit code says so at the end.
    """
    from kornia_ditf.cli import output, progress
    from kornia_ditf.registry.matchers import load_matcher
    from kornia_ditf.sfm import folder as engine
    from kornia_ditf.utils.files import make_folder, sweep

    targets = export or [out / "matches.npz"]
    make_folder(out)
    sweep(out)
    check_exports(targets)
    own = {
        "device": device,
        "dtype": dtype,
        "long_side": long_side or None,
        "tiles": tiles,
        "upsample": upsample,
    }
    chosen = {key: value for key, value in own.items() if value is not None}
    chosen |= values.read_others(others)
    stages = progress.Stages()
    with stages.stage("load"):
        loaded = load_matcher(matcher, **chosen)
    try:
        with progress.StageProgress() as shown:

            def track(pairs: Any) -> Any:
                shown.begin("match", len(pairs))
                for pair in pairs:
                    yield pair
                    shown.advance(1)

            found = engine.match_folder(
                folder,
                loaded,
                pairs,
                count=count,
                threshold=threshold,
                min_inliers=min_inliers,
                min_share=min_share,
                cell=cell,
                cache=out / "pairs",
                settings=json.dumps([matcher, chosen], sort_keys=True),
                progress=track,
                on_error=lambda error: failures.say_error(str(error)),
            )
    except KeyboardInterrupt as interrupt:
        raise failures.fail(
            "interrupted; finished pairs are kept, and the same command goes on",
            failures.interrupt_code(interrupt),
        ) from interrupt
    with stages.stage("export"):
        written = [
            str(path)
            for target in targets
            for path in found.graph.save(target, folder=folder, one_camera=one_camera)
        ]
    output.show(_result(found, matcher, chosen, written), as_json=as_json)
    if found.failed:
        codes = {failures.exit_code(error) for error in found.failed.values()}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _result(found: FolderMatches, matcher: str, chosen: dict[str, Any], written: list[str]) -> Any:
    from kornia_ditf.cli import output
    from kornia_ditf.utils import provenance

    graph, lengths = found.graph, found.graph.track_lengths()
    tracks = {
        "tracks": len(lengths),
        "mean_track_length": round(float(lengths.float().mean()), 2) if len(lengths) else 0.0,
    }
    document = {
        "versions": provenance.versions(output.LIBRARIES),
        "matcher": {"name": matcher, **chosen},
        "images": [each.name for each in graph.images],
        "failed": [{"image": name, "error": str(error)} for name, error in found.failed.items()],
        "pairs": {
            "matched": found.matched,
            "resumed": found.resumed,
            "weak": found.weak,
            "kept": len(graph.pairs),
        },
        "keypoints": sum(len(each.keypoints) for each in graph.images),
        "matches": sum(len(each.indices) for each in graph.pairs),
        "inliers": sum(int(each.inliers.sum()) for each in graph.pairs),
        **tracks,
        "written": written,
    }
    pairs = (
        f"{len(graph.pairs)} kept; {found.matched} matched now, {found.resumed} found finished, "
        f"{found.weak} left out for few inliers"
    )
    facts = [
        ("matcher", matcher),
        ("images", f"{len(graph.images)} used, {document['keypoints']} keypoints"),
        ("pairs", pairs),
        ("matches", f"{document['matches']}, {document['inliers']} of them inliers"),
        ("tracks", f"{tracks['tracks']}, {tracks['mean_track_length']} images each on average"),
        ("written", ", ".join(written)),
    ]
    if found.failed:
        facts.append(("failed", ", ".join(found.failed)))
    return output.Result(document, [output.Facts(facts)])


def check_exports(targets: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Check the option --export before the work.

    Raises:
        InvalidArgumentError: a suffix that is none of a known format.
        MissingExtraError: what a format needs is not installed.
        OutputError: a file cannot be written, or is one of the inputs.
    """
    from kornia_ditf.cli import output
    from kornia_ditf.sfm.formats import check_format

    for target in targets:
        check_format(target)
        output.check_output(target, inputs=inputs)


def export_pair(
    targets: Sequence[Path], paths: Sequence[Path], sizes: Any, matches: Matches, threshold: float
) -> list[str]:
    """Write the matches of two images for other tools; returns the files."""
    from kornia_ditf.matching.verification import verify
    from kornia_ditf.sfm.graph import CorrespondenceGraph

    if not targets:
        return []
    kept = verify(matches, "fundamental", threshold=threshold).inliers
    names = [path.name for path in paths]
    if names[0] == names[1]:
        names = [path.as_posix() for path in paths]
    graph = CorrespondenceGraph.of_pair(names, [tuple(size) for size in sizes], matches, kept)
    return [str(path) for target in targets for path in graph.save(target)]
