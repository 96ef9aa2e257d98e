"""The result of matching two images, which `kornia-ditf match` prints, draws and writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from torch import Tensor

    from kornia_ditf.cli.progress import Stages
    from kornia_ditf.matching.verification import Verification
    from kornia_ditf.types import DescriptorMap, Matches

MIN_MATCHES = 8  # a homography through fewer explains nothing

Exports = Annotated[
    list[Path] | None,
    options.path_option(
        "FILE",
        "Write the matches for another tool: a COLMAP database (.db), hloc's features and "
        "matches (.h5), .npz or .json; may be repeated.",
    ),
]


@dataclass(frozen=True, slots=True)
class Pair:
    """The matches of two images, and the homography that they agree on.

    Args:
        matches: in pixels of both.
        plane: the homography; None where there is none.
        threshold_px: maximum error of a match that agrees with it.
    """

    matches: Matches
    plane: Verification | None
    threshold_px: float

    def as_values(self) -> dict[str, Any]:
        """Return the matches and the homography as JSON values."""
        homography = None
        if self.plane is not None:
            homography = {
                "matrix": self._matrix(),
                "threshold_px": round(self.threshold_px, 3),
                "inliers": self.plane.inliers.tolist(),
            }
        return {
            "points_a": _rounded(self.matches.points_a, 3),
            "points_b": _rounded(self.matches.points_b, 3),
            "scores": _rounded(self.matches.scores, 6),
            "homography": homography,
        }

    def facts(self) -> list[tuple[str, str]]:
        """Describe how many matches there are, how alike, and what they agree on."""
        import torch

        count, said = len(self.matches), "0"
        if count:
            scores = self.matches.scores.float().cpu()
            quantiles = torch.quantile(scores, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
            values = " ".join(f"{value:.3f}" for value in quantiles.tolist())
            said = f"{count}; similarity {values} (minimum, quartiles, maximum)"
        if self.plane is None:
            return [("matches", said), ("geometry", f"{count} matches do not fix a homography")]
        explained = (
            f"a plane or a rotation explains {int(self.plane.inliers.sum())} of {count} matches "
            f"(within {self.threshold_px:.1f} px)"
        )
        rows = "; ".join(" ".join(f"{value:.5g}" for value in row) for row in self._matrix())
        return [("matches", said), ("geometry", explained), ("A to B", f"homography {rows}")]

    def _matrix(self) -> list[list[float]]:
        assert self.plane is not None and self.plane.matrix is not None
        rows: list[list[float]] = self.plane.matrix.tolist()
        return rows


@dataclass(frozen=True, slots=True)
class Outputs:
    """The two images, and where their result goes besides standard output: options of `match`."""

    paths: tuple[Path, Path]
    picture: Path | None
    limit: int
    json_file: Path | None
    export: Sequence[Path]
    as_json: bool

    def check(self) -> None:
        """Check that all can be written, before the work.

        Raises:
            InvalidArgumentError: a suffix is wrong, or two files are the same.
            MissingExtraError: what a format needs is not installed.
            OutputError: a file cannot be written, or is one of the images.
        """
        from kornia_ditf.errors import InvalidArgumentError
        from kornia_ditf.utils.checks import check_integer

        picture = self.picture
        if picture is not None and picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise InvalidArgumentError(f"--picture must end in .png, .jpg or .jpeg, got {picture}")
        if picture is not None and picture == self.json_file:
            raise InvalidArgumentError(f"--picture and --json-file both name {picture}")
        check_integer("--limit", self.limit, 1)
        for path in (picture, self.json_file):
            output.check_output(path, inputs=self.paths)
        check_exports(self.export, inputs=self.paths)

    def show(
        self,
        pair: Pair,
        images: Sequence[Tensor],
        document: dict[str, Any],
        facts: Sequence[tuple[str, str]],
        stages: Stages,
    ) -> None:
        """Write and print the result; `document` and `facts` say what it was made with."""
        from kornia_ditf.utils.picture import save_picture
        from kornia_ditf.viz.matches import draw_matches

        document = {
            **document,
            **pair.as_values(),
            "picture": None if self.picture is None else str(self.picture),
            "seconds": {name: round(seconds, 4) for name, seconds in stages.seconds.items()},
        }
        file = self.json_file
        with nullcontext() if file is None else output.written_json(file, document):
            if self.picture is not None:  # both files appear, or none
                inliers = None if pair.plane is None else pair.plane.inliers
                drawn = draw_matches(
                    images[0], images[1], pair.matches, limit=self.limit, inliers=inliers
                )
                save_picture(self.picture, drawn)
        written = [str(path) for path in (self.picture, file) if path is not None]
        written += self._export(pair, [tuple(image.shape[2:]) for image in images])
        shown = [
            *facts,
            *pair.facts(),
            ("seconds", f"{stages.describe()}; {sum(stages.seconds.values()):.2f} in all"),
            *((("written", ", ".join(written)),) if written else ()),
        ]
        output.show(document, shown, as_json=self.as_json)

    def _export(self, pair: Pair, sizes: Sequence[Any]) -> list[str]:
        """Write the matches for other tools; returns the files."""
        from kornia_ditf.matching.verification import verify
        from kornia_ditf.sfm.graph import CorrespondenceGraph

        if not self.export:
            return []
        kept = verify(pair.matches, "fundamental", threshold=pair.threshold_px).inliers
        names = [path.name for path in self.paths]
        if names[0] == names[1]:
            names = [path.as_posix() for path in self.paths]
        graph = CorrespondenceGraph.of_pair(names, sizes, pair.matches, kept)
        return [str(path) for target in self.export for path in graph.save(target)]


def check_exports(targets: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Check the option --export before the work.

    Raises:
        InvalidArgumentError: a suffix that is none of a known format.
        MissingExtraError: what a format needs is not installed.
        OutputError: a file cannot be written, or is one of the inputs.
    """
    from kornia_ditf.sfm.formats import check_format

    for target in targets:
        check_format(target)
        output.check_output(target, inputs=inputs)


def image_values(path: Path | str, described: DescriptorMap) -> dict[str, Any]:
    """Return the sizes of an image and of its grid as JSON values."""
    return {
        "path": str(path),
        "size": list(described.frame.image_size),
        "model_size": list(described.frame.model_size),
        "grid": list(described.grid),
    }


def image_facts(
    paths: Sequence[Path | str], maps: Sequence[DescriptorMap]
) -> list[tuple[str, str]]:
    """Describe the sizes of images A and B and of their grids."""
    facts = []
    for side, path, described in zip("AB", paths, maps, strict=True):
        sizes = (described.frame.image_size, described.frame.model_size, described.grid)
        own, seen, tokens = (f"{width} x {height}" for height, width in sizes)
        facts.append((f"image {side}", f"{path}, {own} px, resized to {seen}, {tokens} tokens"))
    return facts


def _rounded(values: Tensor, digits: int) -> Any:
    return values.detach().cpu().double().numpy().round(digits).tolist()
