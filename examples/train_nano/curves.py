"""Measure matching of photographs that were turned, or shown larger and smaller.

Each photograph is matched with itself turned or scaled about its centre, under other light and
noise. For dense descriptors the share of grid queries that are matched within 8 pixels is measured
(PCK@8); for these and for OpenCV's detectors, as its users run them, the share of photographs whose
homography is found (mean corner error at most 10 pixels), and how precise the right matches are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
from describers import Describe
from matchers import SEARCHING, Matcher
from measure import corner_error, match_pair, table
from pairs import TestPair, queries_of, relit, shrink, skimage_data, sklearn_images
from photographs import read_rgb
from views import Array, Image, project, translation

TURNS = (-90, -60, -45, -30, -15, 0, 15, 30, 45, 60, 90)
SCALES = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
CANVAS_PX = 480
RIGHT_PX = 8
SOLVED_PX = 10.0


def unseen_photographs() -> dict[str, Image]:
    """Read photographs of scikit-image and scikit-learn, which trained and chose nothing."""
    paths = [skimage_data() / f"{name}.png" for name in ("astronaut", "coffee", "chelsea")]
    paths += [skimage_data() / "rocket.jpg"]
    paths += [sklearn_images() / f"{name}.jpg" for name in ("china", "flower")]
    return {path.stem: read_rgb(path) for path in paths}


def moved(photograph: Image, turn_deg: float, scale: float) -> TestPair:
    """Pair a photograph with itself turned and scaled about its centre, on an equal canvas."""
    factor = CANVAS_PX / max(photograph.shape[:2])
    image = shrink(photograph, *(round(n * factor) for n in photograph.shape[1::-1]))
    size = image.shape[1::-1]
    centre = (np.array(size) - 1) / 2
    cos, sin = scale * np.cos(np.deg2rad(turn_deg)), scale * np.sin(np.deg2rad(turn_deg))
    about = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    homography = translation(*centre) @ about @ translation(*-centre)
    # Blurred by what a reduction loses; `warpPerspective` alone would alias.
    blur = 0.5 * np.sqrt(max(scale**-2 - 1, 0))
    sharp = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    shown = cv2.warpPerspective(sharp, homography, size, flags=cv2.INTER_CUBIC)
    truth = project(homography, queries_of(image))
    name = f"turned {turn_deg:g}, {scale:g} times"
    return TestPair(name, image, relit(shown, np.random.default_rng(0)), truth, homography)


def pck_curve(
    photographs: Mapping[str, Image], motions: Sequence[tuple[float, float]], describe: Describe
) -> Array:
    """Match every photograph at every (turn, scale); return the mean PCK@8 of each in per cent."""
    found = []
    for image in photographs.values():
        pairs = [replace(moved(image, *motion), homography=None) for motion in motions]
        found.append([match_pair(pair, describe).share(RIGHT_PX, mutual=False) for pair in pairs])
    return 100 * np.mean(found, 0)


def homography_errors(pair: TestPair, matcher: Matcher) -> tuple[float, float]:
    """Return the corner error of the homography, and the median error of the right matches.

    A match is right within RIGHT_PX; the median is NaN where none is.
    """
    a, b = matcher.match(pair.image_a, pair.image_b)
    distance = np.linalg.norm(project(pair.homography, a) - b, axis=1)
    right = distance[distance <= RIGHT_PX]
    median = float(np.median(right)) if len(right) else np.nan
    return corner_error(a, b, pair, matcher.within_px), median


def precision_table(errors: Mapping[str, Array], name: str, against: str) -> str:
    """Compare the precision of two matchers where both find the homography.

    Args:
        errors: of each matcher, the corner error and the median error of its right matches for
            each pair, shape (pairs, 2).
        name: the matcher whose precision is divided.
        against: by that of this one.
    """
    both = (errors[name][:, 0] <= SOLVED_PX) & (errors[against][:, 0] <= SOLVED_PX)
    medians = [np.median(errors[one][both], 0) for one in (name, against)]
    medians.append(medians[0] / medians[1])
    labels = ("median error of right matches, px", "corner error of the homography, px")
    rows = {
        label: [f"{median[1 - row]:.2f}" for median in medians] for row, label in enumerate(labels)
    }
    return table([f"{both.sum()} of {len(both)} pairs", name, against, "ratio"], rows)


def curve_tables(
    photographs: Mapping[str, Image],
    dense: Mapping[str, Describe],
    compared: Mapping[str, Matcher],
    track: Callable[[str, int], Callable[[], None]],
) -> dict[str, str]:
    """Match along both curves; return the tables by their names on the pages."""
    tables, every = {}, {name: [] for name in compared}
    for key, title, motions, labels in (
        ("turn", "turned by, degrees", [(turn, 1.0) for turn in TURNS], TURNS),
        ("scale", "shown larger, times", [(0.0, scale) for scale in SCALES], SCALES),
    ):
        advance = track(title, len(dense) + len(compared))
        shares, solved, precision = {}, {}, {}
        for name, describe in dense.items():
            share = pck_curve(photographs, motions, describe)
            shares[name] = [f"{value:.0f}" for value in (*share, share.mean())]
            advance()
        for name, matcher in compared.items():
            found = [
                [homography_errors(moved(image, *m), matcher) for m in motions]
                for image in photographs.values()
            ]
            every[name] += [pair for photograph in found for pair in photograph]
            corners, apart = np.moveaxis(found, -1, 0)
            share = 100 * (corners <= SOLVED_PX).mean(0)
            solved[name] = [f"{value:.0f}" for value in (*share, share.mean())]
            precision[name] = [f"{value:.2f}" for value in np.nanmedian(apart, 0)]
            advance()
        head = [f"{label:g}" for label in labels]
        tables |= {
            f"pck-{key}": table([f"PCK@{RIGHT_PX}, %; {title}", *head, "mean"], shares),
            f"found-{key}": table([f"homographies found, %; {title}", *head, "mean"], solved),
            f"precision-{key}": table(
                [f"median error of right matches, px; {title}", *head], precision
            ),
        }
    errors = {name: np.array(found) for name, found in every.items()}
    return tables | {"precision": precision_table(errors, SEARCHING, next(iter(compared)))}
