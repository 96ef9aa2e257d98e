"""`kornia-ditf match-folder`: the images of a folder, matched for Structure from Motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from kornia_ditf.cli import failures, options, output
from kornia_ditf.cli.pair import Exports, check_exports


@options.describing("long_side", "tiles", "upsample", "dtype", "device", "option")
def match_folder(
    folder: Annotated[Path, options.path_argument("FOLDER")],
    out: Path,
    export: Exports = None,
    pairs: str = "all",
    count: int = 10,
    matcher: str = "nano",
    *,
    chosen: options.Chosen,
    threshold: float = 4.0,
    min_inliers: int = 15,
    min_share: Annotated[float, {"min": 0, "max": 1}] = 0.25,
    cell: float | None = None,
    one_camera: bool = False,
    as_json: options.Json = False,
) -> None:
    """Match the images of a folder, and write the matches for COLMAP, hloc and others.

    Each pair is matched and verified by a fundamental matrix. Nearby points of an image are merged
    across its pairs, so that tracks extend over many images. An image that cannot be used is
    reported and skipped, and the exit code is set at the end.

    Options:
        --out FOLDER: Store finished pairs in this folder, so that the same command resumes; created
            if needed.
        --pairs KIND|FILE: Match all pairs ('all'), each image with the next ones ('sequential') or
            with the most similar ones ('retrieval'), or the pairs in a file, two names per line.
        --count N: Number of images that each is matched with, for sequential and retrieval.
        --matcher, -m, --backbone, --descriptor, -b NAME: A descriptor (`kornia-ditf backbones`
            lists them), whose tokens are matched, or another matcher (`kornia-ditf matchers`).
        --threshold PX: Largest distance of an inlier to its epipolar line.
        --min-inliers N: Drop pairs with fewer inliers.
        --min-share S: Drop pairs with a smaller share of inliers.
        --cell PX: Merge the points of an image that lie in the same cell of this size into one
            keypoint. [default: a quarter of a token; 1 if no tokens are matched]
        --one-camera: In a COLMAP database, let images of the same size share a camera.
    """
    from kornia_ditf.cli import progress
    from kornia_ditf.registry.matchers import load_matcher
    from kornia_ditf.sfm import folder as engine
    from kornia_ditf.utils.files import make_folder, sweep

    targets = export or [out / "matches.npz"]
    make_folder(out)
    sweep(out)
    check_exports(targets)
    settings = chosen.read()
    stages = progress.Stages()
    with stages.stage("load"):
        loaded = load_matcher(matcher, **settings)
    kept = "; finished pairs are kept, and the same command goes on"
    with failures.saying_interrupted(lambda: kept), progress.StageProgress() as shown:

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
            settings=json.dumps([matcher, settings], sort_keys=True),
            progress=track,
            on_error=lambda error: failures.say_error(str(error)),
        )
    with stages.stage("export"):
        written = [
            str(path)
            for target in targets
            for path in found.graph.save(target, folder=folder, one_camera=one_camera)
        ]
    graph, lengths = found.graph, found.graph.track_lengths()
    tracks = {
        "tracks": len(lengths),
        "mean_track_length": round(float(lengths.float().mean()), 2) if len(lengths) else 0.0,
    }
    document = {
        "versions": output.versions(),
        "matcher": {"name": matcher, **settings},
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
    said = (
        f"{len(graph.pairs)} kept; {found.matched} matched now, {found.resumed} resumed, "
        f"{found.weak} left out for few inliers"
    )
    facts = [
        ("matcher", matcher),
        ("images", f"{len(graph.images)} used, {document['keypoints']} keypoints"),
        ("pairs", said),
        ("matches", f"{document['matches']}, {document['inliers']} of them inliers"),
        ("tracks", f"{tracks['tracks']}, {tracks['mean_track_length']} images each on average"),
        ("written", ", ".join(written)),
    ]
    if found.failed:
        facts.append(("failed", ", ".join(found.failed)))
    output.show(document, facts, as_json=as_json)
    failures.fail_with(map(failures.exit_code, found.failed.values()))
