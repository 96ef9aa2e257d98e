"""`kornia-ditf matchers`: the image matchers that are installed, and what others need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kornia_ditf.cli import options, output


def matchers(as_json: options.Json = False) -> None:
    """List image matchers and what each lacks here; no model is loaded.

    Any descriptor of `kornia-ditf backbones` is a matcher as well. Learned matchers take their
    weights from the network when they are first loaded.
    """
    from kornia_ditf.registry.matchers import list_matchers, missing_for

    rows, document = [], []
    for spec in list_matchers().values():
        lacks = missing_for(spec)
        rows.append((spec.name, "missing" if lacks else "ready", spec.license, spec.source))
        document.append(
            {
                "name": spec.name,
                "lacks": lacks,
                "license": spec.license,
                "source": spec.source,
            }
        )
    missing = [f"{each['name']}: {each['lacks']}" for each in document if each["lacks"]]
    table = output.Table(
        ("name", "state", "licence", "source"), rows, optional=("source", "licence")
    )
    text: list[output.Paragraph] = [table, "", *missing]
    text.append("vismatch:NAME: any matcher of the package vismatch (pip install vismatch)")
    output.show(output.Result({"matchers": document}, text), as_json=as_json)


def match_with(
    name: str,
    paths: tuple[Path, Path],
    settings: dict[str, Any],
    picture: Path | None,
    json_file: Path | None,
    limit: int,
    export: Sequence[Path],
    as_json: bool,
) -> None:
    """Match two images with a matcher and show the result, as `kornia-ditf match` does."""
    from contextlib import nullcontext

    from kornia_ditf.cli import progress
    from kornia_ditf.cli.match import as_values, describe_geometry, describe_matches, rounded
    from kornia_ditf.cli.match_folder import export_pair
    from kornia_ditf.matching.verification import verify
    from kornia_ditf.preprocess import as_image
    from kornia_ditf.registry.matchers import load_matcher
    from kornia_ditf.utils import provenance
    from kornia_ditf.utils.picture import save_picture
    from kornia_ditf.viz.matches import draw_matches

    images = [as_image(path) for path in paths]
    for path in (picture, json_file):
        output.check_output(path, inputs=paths)
    stages = progress.Stages()
    with stages.stage("load"):
        matcher = load_matcher(name, **settings)
    with stages.stage("match"):
        extracted = [
            matcher.extract(image, str(path)) for image, path in zip(images, paths, strict=True)
        ]
        found = matcher.match(*extracted)
        verification = verify(found, threshold=matcher.threshold)
    plane = verification if verification.matrix is not None else None
    document = {
        "versions": provenance.versions(output.LIBRARIES),
        "images": {
            side: {"path": str(path), "size": list(image.shape[2:])}
            for side, path, image in zip("ab", paths, images, strict=True)
        },
        "matcher": {"name": name, **settings},
        "points_a": rounded(found.points_a, 3),
        "points_b": rounded(found.points_b, 3),
        "scores": rounded(found.scores, 6),
        "homography": None if plane is None else as_values(plane, matcher.threshold),
        "picture": None if picture is None else str(picture),
        "seconds": {stage: round(seconds, 4) for stage, seconds in stages.seconds.items()},
    }
    with nullcontext() if json_file is None else output.written_json(json_file, document):
        if picture is not None:
            inliers = None if plane is None else plane.inliers
            drawn = draw_matches(images[0], images[1], found, limit=limit, inliers=inliers)
            save_picture(picture, drawn)
    written = [str(path) for path in (picture, json_file) if path is not None]
    sizes = [image.shape[2:] for image in images]
    written += export_pair(export, paths, sizes, found, matcher.threshold)
    facts = output.Facts(
        [
            ("matcher", name),
            *((f"image {side}", str(path)) for side, path in zip("AB", paths, strict=True)),
            ("matches", describe_matches(found)),
            *describe_geometry(plane, len(found), matcher.threshold),
            ("seconds", f"{stages.describe()}; {sum(stages.seconds.values()):.2f} in all"),
            *((("written", ", ".join(written)),) if written else ()),
        ]
    )
    output.show(output.Result(document, [facts]), as_json=as_json)
