"""`kornia-ditf match`: correspondences between two images, as text, picture and JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kornia_ditf.cli import options, output, values
from kornia_ditf.cli.pair import (
    MIN_MATCHES,
    Exports,
    Outputs,
    Pair,
    image_facts,
    image_values,
)
from kornia_ditf.cli.progress import Stages

if TYPE_CHECKING:
    from kornia_ditf.search.verified import ImageMatches


@options.describing(prompt=list[str] | None)
def match(
    image_a: Annotated[Path, options.path_argument("A")],
    image_b: Annotated[Path, options.path_argument("B")],
    chosen: options.Chosen,
    matcher: str | None = None,
    min_score: float | None = None,
    search: str = "both",
    pca: str | None = None,
    pose: str = "none",
    refine: Annotated[int | None, {"min": 1}] = None,
    picture: Path | None = None,
    limit: int = 60,
    json_file: Path | None = None,
    export: Exports = None,
    as_json: options.Json = False,
) -> None:
    """Find correspondences between two images, or between descriptors stored by `extract`.

    Each patch of A is paired with its mutual nearest neighbour in B. Points are (x, y) in pixels;
    (0, 0) is the centre of the first pixel. A may also be a file of descriptors, and B another one
    or a folder of them, with one result per pair.

    Options:
        --matcher, -m NAME: Use this matcher instead of a descriptor's tokens: sift, loftr ...
            (`kornia-ditf matchers` lists them); --option sets its options, such as ratio=0.75 or
            verification=homography.
        --min-score S: Keep matches of at least this similarity.
        --search KIND: What to try if the images do not match as they are: rotations ('turns'),
            sizes from a third to three times ('scales'), 'both' or 'none'.
        --pca N: Reduce the tokens of both images together to their first N principal components;
            N,N reduces each joined block or descriptor. [default: preset]
        --pose KIND: Match the view of A that is nearest to B: unchanged or mirrored ('flips'), in
            quarter turns ('turns'), all of these ('both'), or only unchanged ('none').
        --refine N: Refine the points of B on crops of the images, with tokens N times smaller.
        --picture FILE.png: Draw the matches to this file.
        --limit N: Draw at most N matches.
        --json-file, --out FILE.json: Write the result to this file.
        --prompt TEXT: Prompt for the model; once for both images, or once for each. [default:
            preset]
    """
    from kornia_ditf.cli import settings
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.cli.stored import is_stored, match_stored
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.matching.poses import POSES
    from kornia_ditf.search.variants import check_search
    from kornia_ditf.search.verified import match_images
    from kornia_ditf.utils.checks import check_number, check_one_of

    paths, reduced = (image_a, image_b), values.read_pca(pca)
    check_one_of("--pose", pose, POSES)
    posed: Any = pose
    asked = None if pose == "none" else pose
    prompts: list[str] = chosen.prompt or []
    if len(prompts) > 2:
        raise InvalidArgumentError(
            f"give --prompt once for both images or once for each, got {len(prompts)}"
        )
    if min_score is not None:
        check_number("--min-score", min_score, "[-1, 1]")
    outputs = Outputs(paths, picture, limit, json_file, export or (), as_json)
    outputs.check()
    if any(map(is_stored, paths)):
        own = chosen.but(block=None, device=None).flags
        unused: dict[str, Any] = {"--picture": picture, "--export": export, "--matcher": matcher}
        unused |= {"--refine": refine, "--pose": asked}
        _refuse({**own, **unused}, "stored descriptors have theirs")
        match_stored(chosen, outputs, min_score=min_score, pca=reduced or 0)
        return
    if matcher is not None:
        own = chosen.but(device=None, long_side=None, option=None).flags
        others: dict[str, Any] = {"--min-score": min_score, "--refine": refine, "--pca": pca}
        _refuse({**own, **others, "--pose": asked}, "with --matcher type --option KEY=VALUE")
        _match_with(matcher, chosen.read(), outputs)
        return
    kind = check_search(search)
    spec = chosen.spec()
    images = [read_fitting(path, *chosen.fitting(spec)) for path in paths]
    stages = Stages()
    with stages.stage("load"):
        chosen = chosen.but(prompt=prompts[0] if len(prompts) == 1 else None)
        descriptor = chosen.load(spec)
    channels, origin = settings.known_channels(descriptor)
    texts = settings.prompts_of(descriptor, prompts)
    with stages.stage("describe"):
        maps = descriptor.describe_together(images, texts)
    if channels is None:
        channels, origin = settings.known_channels(descriptor)[0] or (), "found in these two images"
    with stages.stage("match"):
        searched = match_images(
            images[0],
            images[1],
            descriptor,
            texts,
            search=kind,
            pose=posed,
            maps=maps,
            min_score=min_score,
            zoom=refine,
            pca=reduced,
        )
    fits = len(searched.matches) >= MIN_MATCHES and searched.verification.matrix is not None
    plane = searched.verification if fits else None
    document = {
        "versions": output.versions(),
        "images": {
            side: image_values(path, described)
            for side, path, described in zip("ab", paths, maps, strict=True)
        },
        "backbone": {
            **settings.as_values(chosen, spec, descriptor),
            **({} if texts is None else {"prompt": texts}),
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
    }
    facts = settings.preset_facts(chosen.backbone, spec, descriptor)
    if isinstance(settings.unwrapped(descriptor), DiTF):
        facts.append(("discarded", settings.describe_channels_found(channels, origin)))
    facts += [
        *image_facts(paths, maps),
        *((("pose", _describe_pose(searched)),) if searched.poses else ()),
        *((("search", _describe_search(searched)),) if len(searched.attempts) > 1 else ()),
    ]
    found = Pair(searched.matches, plane, searched.threshold)
    outputs.show(found, images, document, facts, stages)


def _match_with(name: str, settings: dict[str, Any], outputs: Outputs) -> None:
    """Match two images with a matcher and show the result, as `kornia-ditf match` does."""
    from kornia_ditf.matching.verification import verify
    from kornia_ditf.preprocess import as_image
    from kornia_ditf.registry.matchers import load_matcher

    paths = outputs.paths
    images = [as_image(path) for path in paths]
    stages = Stages()
    with stages.stage("load"):
        matcher = load_matcher(name, **settings)
    with stages.stage("match"):
        extracted = [
            matcher.extract(image, str(path)) for image, path in zip(images, paths, strict=True)
        ]
        found = matcher.match(*extracted)
        verification = verify(found, threshold=matcher.threshold)
    document = {
        "versions": output.versions(),
        "images": {
            side: {"path": str(path), "size": list(image.shape[2:])}
            for side, path, image in zip("ab", paths, images, strict=True)
        },
        "matcher": {"name": name, **settings},
    }
    sides = [(f"image {side}", str(path)) for side, path in zip("AB", paths, strict=True)]
    plane = verification if verification.matrix is not None else None
    pair = Pair(found, plane, matcher.threshold)
    outputs.show(pair, images, document, [("matcher", name), *sides], stages)


def _refuse(given: dict[str, Any], advice: str) -> None:
    """Refuse options of descriptors that would be ignored."""
    from kornia_ditf.errors import InvalidArgumentError

    for name, value in given.items():
        if value is not None and value != []:
            raise InvalidArgumentError(f"{name} applies only to described images; {advice}")


def _describe_pose(searched: ImageMatches) -> str:
    tried = ", ".join(f"{name} {distance:.3f}" for name, distance in searched.poses.items())
    return f"A {searched.pose} is nearest to B (mean distance: {tried})"


def _describe_search(searched: ImageMatches) -> str:
    tried = f"{len(searched.attempts)} variants tried"
    if not searched.chosen:
        return f"{tried}; none agrees better than the images as they are"
    chosen = searched.attempts[searched.chosen]
    return f"{tried}; B turned by {chosen.turn:.0f} degrees and {chosen.scale:.2g} times as large"
