"""`kornia-ditf match` of files of descriptors: one query against one file, or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import failures, output, progress
from kornia_ditf.cli.pair import MIN_MATCHES, Pair, image_facts, image_values

if TYPE_CHECKING:
    from kornia_ditf.cli.options import Chosen
    from kornia_ditf.cli.pair import Outputs
    from kornia_ditf.matching.joint import PCA
    from kornia_ditf.types import DescriptorMap, Matches
    from kornia_ditf.types.shards import StoredMap

_SUFFIXES = (".safetensors", ".tar")
_SHARED = (
    *("name", "identity", "timestep", "timesteps", "treatment", "facet", "joined_blocks"),
    "projection",
)
"""Metadata that say alike of descriptors that can be compared, as the block and its channels do."""


def is_stored(path: Path) -> bool:
    """Whether a path names stored descriptors rather than an image: a file, shard, or folder."""
    return path.suffix in _SUFFIXES or any(any(path.glob(f"*{each}")) for each in _SUFFIXES)


def match_stored(chosen: Chosen, outputs: Outputs, *, min_score: float | None, pca: PCA) -> None:
    """Match the descriptors of a file with those of another, or of each file of a folder.

    Args:
        chosen: which block, where files hold several, and the device.
        outputs: the file of image A; that of image B, a shard, or a folder of both, of which no
            more than a few maps are in memory at a time; and where one JSON line per pair goes.
        min_score: discard matches of a lower similarity.
        pca: joint PCA of each pair's tokens; 0 for none.
    """
    from kornia_ditf.errors import DiTFError, InvalidArgumentError
    from kornia_ditf.matching.joint import reduce_pair
    from kornia_ditf.matching.match import match
    from kornia_ditf.matching.refinement import refine
    from kornia_ditf.types.descriptors import read_map
    from kornia_ditf.types.shards import list_stored
    from kornia_ditf.utils.checks import read_device
    from kornia_ditf.utils.pipeline import run_in_groups

    (query, others), block = outputs.paths, chosen.block
    many = others.is_dir() or others.suffix == ".tar"
    held = ".safetensors"
    for path, fits in ((query, query.suffix == held), (others, many or others.suffix == held)):
        if not fits or not path.exists():
            raise InvalidArgumentError(
                f"{path} is not a file of descriptors, but the other side is: describe both with "
                "`kornia-ditf extract IMAGE... --out FOLDER`, or match two images; `tar xf` "
                "takes an image's file out of a shard"
            )
    files = list_stored(others)
    if not files:
        raise InvalidArgumentError(
            f"{others} holds no .safetensors files: `kornia-ditf extract IMAGE... --out {others}` "
            "writes them"
        )
    place = read_device(chosen.device or "cpu")
    map_a, about_a = read_map(query, block)
    map_a = map_a.to(place)

    def read(stored: StoredMap) -> tuple[DescriptorMap, Mapping[str, Any]]:
        described, about = stored.read(block)
        _check_alike(query, about_a, stored, about, block)
        return described, about

    def run(
        some: Sequence[tuple[DescriptorMap, Mapping[str, Any]]],
    ) -> list[tuple[DescriptorMap, Mapping[str, Any], Matches]]:
        sides = [reduce_pair(map_a, each.to(place), pca) for each, _ in some]
        found = match([a for a, _ in sides], [b for _, b in sides], min_score=min_score)
        return [
            (described, about, refine(matches, *pair))
            for (described, about), matches, pair in zip(some, found, sides, strict=True)
        ]

    pairs = run_in_groups(files, read, run, lambda one: (one[0].data.shape, 8), ahead=8)
    codes = set()
    with _json_lines(outputs.json_file) as write:
        for stored, found in progress.track(pairs, "match", len(files)):
            if isinstance(found, DiTFError):
                if not many:
                    raise found
                failures.say_error(str(found))
                codes.add(failures.exit_code(found))
                continue
            map_b, about_b, matches = found
            pair = _find_plane(map_a, map_b, matches)
            sides = ((str(query), map_a, about_a), (str(stored), map_b, about_b))
            document = {
                "images": {
                    side: {**image_values(path, described), "image": about.get("image")}
                    for side, (path, described, about) in zip("ab", sides, strict=True)
                },
                **pair.as_values(),
            }
            write(document)
            if many and outputs.as_json:
                output.echo(json.dumps(document))
            elif many:
                plane = pair.plane
                agree = "no plane" if plane is None else f"{int(plane.inliers.sum())} on a plane"
                output.echo(f"{stored}: {len(matches)} matches, {agree}")
            else:
                facts = [*image_facts([str(query), str(stored)], [map_a, map_b]), *pair.facts()]
                output.show(document, facts, as_json=outputs.as_json)
    failures.fail_with(codes)


def _made(about: Mapping[str, Any], block: int | None) -> dict[str, Any]:
    """Return what must agree for descriptors to be compared, as far as their file says it."""
    made = {name: about[name] for name in _SHARED if name in about}
    blocks = about.get("descriptor_blocks") or []
    chosen = blocks[0] if block is None and len(blocks) == 1 else block
    if chosen is not None:
        channels = about.get("massive_channels", {}).get(str(chosen))
        made |= {"block": chosen, "massive_channels": channels}
    return made


def _check_alike(
    query: Path, a: Mapping[str, Any], path: StoredMap, b: Mapping[str, Any], block: int | None
) -> None:
    from kornia_ditf.errors import InvalidArgumentError

    made_a, made_b = _made(a, block), _made(b, block)
    for name in made_a.keys() & made_b.keys():
        if made_a[name] != made_b[name]:
            raise InvalidArgumentError(
                f"{path} cannot be compared with {query}: {name} is {made_b[name]!r} and "
                f"{made_a[name]!r}; extract both with the same settings"
            )


def _find_plane(a: DescriptorMap, b: DescriptorMap, matches: Matches) -> Pair:
    """Find the homography that matches agree on within a token, as `match_images` does."""
    from kornia_ditf.matching.verification import verify

    threshold = max(
        pixels / count for pixels, count in zip(b.frame.image_size, b.grid, strict=True)
    )
    plane = verify(matches, threshold=threshold) if len(matches) >= MIN_MATCHES else None
    return Pair(matches, None if plane is None or plane.matrix is None else plane, threshold)


@contextmanager
def _json_lines(path: Path | None) -> Iterator[Any]:
    """Yield what writes documents to a file, one per line; it appears when all are written."""
    from kornia_ditf.utils.files import atomic_write

    if path is None:
        yield lambda document: None
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda document: file.write(json.dumps(document) + "\n")
