"""`kornia-ditf match`: correspondences between two images, as text, picture and JSON."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import match_folder, options, values

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.matching.verification import Verification
    from kornia_ditf.search.verified import ImageMatches
    from kornia_ditf.types import DescriptorMap, Matches

MIN_MATCHES = 8  # a homography through fewer explains nothing


_Prompts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="Tell the model what it sees; once for both images, or once for each.  "
        "[default: preset]",
    ),
]


@options.describing(prompt=_Prompts)
def match(
    image_a: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="A", show_default=False)
    ],
    image_b: Annotated[
        Path, typer.Argument(parser=options.read_path, metavar="B", show_default=False)
    ],
    chosen: options.Chosen,
    matcher: Annotated[
        str | None,
        typer.Option(
            "--matcher",
            "-m",
            metavar="NAME",
            help="Match with this and not with a descriptor's tokens: sift, loftr ... "
            "(`kornia-ditf matchers` lists them); --option holds its options, such as ratio=0.75 "
            "or verification=homography.",
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(metavar="S", help="Keep matches of at least this similarity.")
    ] = None,
    search: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What to try where the images do not match as they are: quarter turns ('turns'), "
            "sizes of a third to three times ('scales'), 'both' or 'none'.",
        ),
    ] = "both",
    pca: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Reduce the tokens of both images together to their first N principal "
            "components; N,N reduces each joined block or descriptor.  [default: preset]",
        ),
    ] = None,
    pose: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Match the view of A that is nearest to B: as it is or mirrored ('flips'), in "
            "quarter turns ('turns'), all of these ('both') or as it is ('none').",
        ),
    ] = "none",
    refine: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Look closer: find the points of B again in parts of the images, with tokens N "
            "times smaller.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path, metavar="FILE.png", help="Draw the matches into this file."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="Draw at most so many.")] = 60,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json-file",
            "--out",
            parser=options.read_path,
            metavar="FILE.json",
            help="Write the result here.",
        ),
    ] = None,
    export: match_folder.Exports = None,
    as_json: options.Json = False,
) -> None:
    """Find correspondences between two images, or between descriptors that `extract` stored.

    Both images are described and every patch of A is paired with the patch of B most like it, where
    the choice is mutual. Points are (x, y) in pixels; (0, 0) is the centre of the first pixel. A
    may also be a file of descriptors, and B another or a folder of them: one result per pair.
    """
    from kornia_ditf.cli import output, progress, settings
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.cli.stored import is_stored, match_stored
    from kornia_ditf.matching.poses import POSES
    from kornia_ditf.search.variants import check_search
    from kornia_ditf.search.verified import match_images
    from kornia_ditf.utils import provenance
    from kornia_ditf.utils.checks import check_one_of
    from kornia_ditf.utils.picture import save_picture
    from kornia_ditf.viz.matches import draw_matches

    paths, reduced = (image_a, image_b), values.read_pca(pca)
    check_one_of("--pose", pose, POSES)
    posed: Any = pose
    asked = None if pose == "none" else pose
    prompts = _check_arguments(chosen.prompt, picture, json_file, limit, min_score)
    match_folder.check_exports(export or (), inputs=paths)
    if any(map(is_stored, paths)):
        own = chosen.but(block=None, device=None).flags
        unused: dict[str, Any] = {"--picture": picture, "--export": export, "--matcher": matcher}
        unused |= {"--refine": refine, "--pose": asked}
        refuse({**own, **unused}, "stored descriptors have theirs")
        output.check_output(json_file, inputs=paths)
        match_stored(
            image_a,
            image_b,
            block=chosen.block,
            device=chosen.device,
            min_score=min_score,
            pca=reduced or 0,
            json_file=json_file,
            as_json=as_json,
        )
        return
    if matcher is not None:
        from kornia_ditf.cli.matchers import match_with

        own = chosen.but(device=None, long_side=None, others=None).flags
        others: dict[str, Any] = {"--min-score": min_score, "--refine": refine, "--pca": pca}
        others["--pose"] = asked
        refuse({**own, **others}, "with --matcher type --option KEY=VALUE")
        given = {"device": chosen.device, "long_side": chosen.long_side or None}
        given = {key: value for key, value in given.items() if value is not None}
        given |= values.read_others(chosen.others)
        match_with(matcher, paths, given, picture, json_file, limit, export or (), as_json)
        return
    kind = check_search(search)
    spec = chosen.spec()
    side = options.side_in_pixels(chosen.long_side, spec)
    images = [read_fitting(path, side, spec.pixels_per_token) for path in paths]
    for path in (picture, json_file):
        output.check_output(path, inputs=paths)
    stages = progress.Stages()
    with stages.stage("load"):
        chosen = chosen.but(prompt=prompts[0] if len(prompts) == 1 else None)
        descriptor = chosen.load(spec)
    channels, origin = settings.known_channels(descriptor)
    told = settings.told(descriptor, prompts)
    with stages.stage("describe"):
        maps = descriptor.describe_together(images, told)
    if channels is None:
        channels, origin = settings.known_channels(descriptor)[0] or (), "found in these two images"
    with stages.stage("match"):
        searched = match_images(
            images[0],
            images[1],
            descriptor,
            told,
            search=kind,
            pose=posed,
            maps=maps,
            min_score=min_score,
            zoom=refine,
            pca=reduced,
        )
    found, threshold_px = searched.matches, searched.threshold
    fits = len(found) >= MIN_MATCHES and searched.verification.matrix is not None
    plane = searched.verification if fits else None

    document = {
        "versions": provenance.versions(output.LIBRARIES),
        "images": {
            side: {
                "path": str(path),
                "size": list(descriptors.frame.image_size),
                "model_size": list(descriptors.frame.model_size),
                "grid": list(descriptors.grid),
            }
            for side, path, descriptors in zip("ab", paths, maps, strict=True)
        },
        "backbone": {
            **settings.as_values(chosen, spec, descriptor),
            **({} if told is None else {"prompt": told}),
            "massive_channels": list(channels),
            "massive_channels_from": origin,
        },
        "min_score": min_score,
        "refine": refine,
        "pca": descriptor.pca if reduced is None else reduced,
        "pose": {"kind": pose, "chosen": searched.pose, "distances": dict(searched.poses)},
        "search": {
            "kind": kind,
            "chosen": searched.chosen,
            "attempts": [asdict(attempt) for attempt in searched.attempts],
        },
        "points_a": rounded(found.points_a, 3),
        "points_b": rounded(found.points_b, 3),
        "scores": rounded(found.scores, 6),
        "homography": None if plane is None else as_values(plane, threshold_px),
        "picture": None if picture is None else str(picture),
        "seconds": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
    }
    inliers = None if plane is None else plane.inliers
    with nullcontext() if json_file is None else output.written_json(json_file, document):
        if picture is not None:  # both files appear, or none
            drawn = draw_matches(images[0], images[1], found, limit=limit, inliers=inliers)
            save_picture(picture, drawn)
    written = [str(path) for path in (picture, json_file) if path is not None]
    sizes = [each.frame.image_size for each in maps]
    written += match_folder.export_pair(export or (), paths, sizes, found, threshold_px)
    facts = output.Facts(
        [
            *settings.preset_facts(chosen.backbone, spec, descriptor),
            *settings.channel_facts(descriptor, channels, origin),
            *(
                (f"image {side}", describe_image(path, descriptors))
                for side, path, descriptors in zip("AB", paths, maps, strict=True)
            ),
            *((("pose", _describe_pose(searched)),) if searched.poses else ()),
            *((("search", _describe_search(searched)),) if len(searched.attempts) > 1 else ()),
            ("matches", describe_matches(found)),
            *describe_geometry(plane, len(found), threshold_px),
            ("seconds", f"{stages.describe()}; {sum(stages.seconds.values()):.2f} in all"),
            *((("written", ", ".join(written)),) if written else ()),
        ]
    )
    output.show(output.Result(document, [facts]), as_json=as_json)


def refuse(given: dict[str, Any], advice: str) -> None:
    """Refuse options of descriptors that would be ignored."""
    from kornia_ditf.errors import InvalidArgumentError

    for name, value in given.items():
        if value is not None and value != []:
            raise InvalidArgumentError(f"{name} is for images that are described here; {advice}")


def _check_arguments(
    prompt: list[str] | None,
    picture: Path | None,
    json_file: Path | None,
    limit: int,
    min_score: float | None,
) -> list[str]:
    from kornia_ditf.errors import InvalidArgumentError

    prompts = list(prompt or ())
    if len(prompts) > 2:
        raise InvalidArgumentError(
            f"give --prompt once for both images or once for each, got {len(prompts)}"
        )
    if picture is not None and picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InvalidArgumentError(f"--picture must end in .png, .jpg or .jpeg, got {picture}")
    if picture is not None and picture == json_file:
        raise InvalidArgumentError(f"--picture and --json-file both name {picture}")
    if limit < 1:
        raise InvalidArgumentError(f"--limit must be at least 1, got {limit}")
    if min_score is not None and not -1 <= min_score <= 1:
        raise InvalidArgumentError(f"--min-score must lie in [-1, 1], got {min_score}")
    return prompts


def describe_image(path: Path, descriptors: DescriptorMap) -> str:
    """Describe the sizes of an image and of its grid."""
    (height, width), (fitted_height, fitted_width) = (
        descriptors.frame.image_size,
        descriptors.frame.model_size,
    )
    rows, columns = descriptors.grid
    return (
        f"{path}, {width} x {height} px, seen at {fitted_width} x {fitted_height}, "
        f"{columns} x {rows} tokens"
    )


def _describe_pose(searched: ImageMatches) -> str:
    tried = ", ".join(f"{name} {distance:.3f}" for name, distance in searched.poses.items())
    return f"A {searched.pose} is nearest to B (mean distance: {tried})"


def _describe_search(searched: ImageMatches) -> str:
    tried = f"{len(searched.attempts)} variants tried"
    if not searched.chosen:
        return f"{tried}; none agrees better than the images as they are"
    chosen = searched.attempts[searched.chosen]
    return f"{tried}; B turned by {chosen.turn:.0f} degrees and {chosen.scale:.2g} times as large"


def describe_matches(matches: Matches) -> str:
    """Describe how many matches there are, and the spread of their scores."""
    import torch

    if not len(matches):
        return "0"
    quantiles = torch.quantile(
        matches.scores.float().cpu(), torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    )
    values = " ".join(f"{value:.3f}" for value in quantiles.tolist())
    return f"{len(matches)}; similarity {values} (least, quartiles, greatest)"


def describe_geometry(
    plane: Verification | None, count: int, threshold_px: float
) -> list[tuple[str, str]]:
    """Describe the homography that matches agree on, as lines of facts."""
    if plane is None:
        return [("geometry", f"{count} matches do not fix a homography")]
    explained = (
        f"a plane or a rotation explains {int(plane.inliers.sum())} of {count} matches "
        f"(within {threshold_px:.1f} px)"
    )
    rows = "; ".join(" ".join(f"{value:.5g}" for value in row) for row in _matrix(plane))
    return [("geometry", explained), ("A to B", f"homography {rows}")]


def as_values(plane: Verification, threshold_px: float) -> dict[str, Any]:
    """Return a homography and its inliers as JSON values."""
    return {
        "matrix": _matrix(plane),
        "threshold_px": round(threshold_px, 3),
        "inliers": plane.inliers.tolist(),
    }


def _matrix(plane: Verification) -> list[list[float]]:
    assert plane.matrix is not None
    rows: list[list[float]] = plane.matrix.tolist()
    return rows


def rounded(values: Tensor, digits: int) -> Any:
    """Round values for JSON."""
    return values.detach().cpu().double().numpy().round(digits).tolist()
