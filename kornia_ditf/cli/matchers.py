"""`kornia-ditf matchers`: the image matchers that are installed, and what others need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from kornia_ditf.cli.pair import Outputs


def matchers(as_json: options.Json = False) -> None:
    """List image matchers and what each lacks here; no model is loaded.

    Any descriptor of `kornia-ditf backbones` is a matcher as well. Learned matchers take their
    weights from the network when they are first loaded.
    """
    from kornia_ditf.registry.matchers import list_matchers, missing_for

    specs = {name: (spec, missing_for(spec)) for name, spec in list_matchers().items()}
    document = [
        {"name": name, "lacks": lacks, "license": spec.license, "source": spec.source}
        for name, (spec, lacks) in specs.items()
    ]
    rows = [
        {
            "name": name,
            "state": "missing" if lacks else "ready",
            "licence": spec.license,
            "source": spec.source,
        }
        for name, (spec, lacks) in specs.items()
    ]
    output.show(
        {"matchers": document},
        output.Table(rows, optional=("source", "licence")),
        "",
        *(f"{name}: {lacks}" for name, (_, lacks) in specs.items() if lacks),
        "vismatch:NAME: any matcher of the package vismatch (pip install vismatch)",
        as_json=as_json,
    )


def match_with(name: str, settings: dict[str, Any], outputs: Outputs) -> None:
    """Match two images with a matcher and show the result, as `kornia-ditf match` does."""
    from kornia_ditf.cli.pair import Pair
    from kornia_ditf.cli.progress import Stages
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
