"""Hard real pairs that packages carry: far views, other seasons and sensors, turned cameras.

Each shows one flat thing, so that a homography is the truth. No matcher took part in finding it:
ViSP's own warps state their matrices; all others begin with points that were read off by eye, and
end with the alignment of the images themselves (ECC), of their grey values, or of their edges where
the light differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from matchers import Matcher
from measure import corner_error, table
from pairs import TestPair, box_in_scene, fetch_sdist, opencv_data, queries_of, shrink
from photographs import fetch, read_rgb
from views import Array, Image, project

LONG_SIDE = 800
BLURS = (21, 11, 5)
# Solved: the corners of what both images show err by at most so much of its diagonal, on average.
SOLVED = 0.03

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ByEye:
    """Two images, and points of both that were read off by eye, in pixels after reduction.

    Attributes:
        name: what the pair shows.
        image_a: a path, from the folder of a package.
        image_b: likewise.
        points_a: (x, y); three begin with an affine map, more with a homography.
        points_b: the same points in the second image.
        outline: corners in the first image of the flat thing.
        edges: align edges and not grey values.
    """

    name: str
    image_a: str
    image_b: str
    points_a: Points
    points_b: Points
    outline: Points
    edges: bool = True


FACADE = ((240, 45), (575, 45), (620, 540), (205, 540))
# Notre-Dame in three photographs: the belfry's outer windows and the ends of the kings' gallery.
NOTRE_DAME = (
    ((291, 83), (527, 85), (608, 376), (218, 378)),
    ((265, 110), (513, 111), (560, 449), (215, 450)),
    ((150, 130), (407, 143), (473, 472), (85, 470)),
)
PARIS = ("easy/notredame.png", "easy/notredame2.jpeg", "vismatch/false_positive/notre_dame.jpg")
BY_EYE = (
    ByEye(
        "page of text, turned",
        *("opencv/imageTextN.png", "opencv/imageTextR.png"),
        ((31, 24), (350, 23), (527, 228), (31, 245)),
        ((6, 80), (329, 28), (541, 205), (46, 303)),
        ((25, 10), (530, 10), (530, 252), (25, 252)),
        edges=False,
    ),
    ByEye(
        "fresco, half repainted, 2.4 times smaller",
        *("vismatch/fresco/fsm.jpg", "vismatch/fresco/sist_chapel.jpg"),
        ((313, 173), (112, 157), (350, 378)),
        ((203, 172), (122, 160), (219, 252)),
        ((10, 60), (320, 60), (320, 230), (440, 380), (10, 380)),
    ),
    ByEye(
        "fresco, detail, tilted, 1.8 times larger",
        *("vismatch/../example_test/original.jpg", "vismatch/../example_test/warped.jpg"),
        ((299, 197), (526, 262), (219, 228), (690, 133)),
        ((275, 137), (571, 329), (119, 190), (750, 87)),
        ((130, 150), (720, 100), (660, 330), (180, 330)),
        edges=False,
    ),
    ByEye(
        "fresco, 2.5 times larger",
        *("vismatch/fresco/sist_chapel.jpg", "vismatch/../example_test/original.jpg"),
        ((204, 171), (122, 159), (217, 247)),
        ((299, 197), (107, 155), (337, 416)),
        ((85, 110), (395, 110), (395, 240), (85, 240)),
    ),
    ByEye(
        "city from orbit and from a satellite",
        *("vismatch/sat2iss/photo_from_iss.jpg", "vismatch/sat2iss/satellite_img.jpg"),
        ((132, 262), (75, 125), (235, 33), (330, 365)),
        ((85, 272), (10, 158), (143, 66), (330, 300)),
        ((60, 60), (440, 60), (440, 440), (60, 440)),
        edges=False,
    ),
    ByEye(
        "town from the air, from two sides",
        *("opencv/aero1.jpg", "opencv/aero3.jpg"),
        (
            *((320, 258.5), (305, 236), (278, 218), (317, 276), (357, 302), (385, 315)),
            *((413, 302), (211, 212), (236, 207), (337, 204), (453, 274), (248, 336)),
        ),
        (
            *((234.6, 262), (270.7, 248), (300, 233.6), (200.7, 270), (157, 288), (143, 300)),
            *((175, 304), (298, 216), (317, 220), (369.6, 250), (262.5, 311), (75.7, 275)),
        ),
        ((200, 200), (350, 205), (470, 280), (400, 325), (240, 335)),
        edges=False,
    ),
    ByEye(
        "St Peter's, other years, behind an obelisk",
        *("easy/megadepth0.jpg", "easy/megadepth1.jpg"),
        ((220, 172.5), (621, 185), (618, 327), (213, 323)),
        ((248, 223), (553, 222), (554, 331), (246, 332)),
        ((165, 190), (655, 195), (655, 385), (165, 385)),
    ),
    ByEye("Notre-Dame 1-2", PARIS[0], PARIS[1], *NOTRE_DAME[:2], FACADE),
    ByEye("Notre-Dame 1-3", PARIS[0], PARIS[2], NOTRE_DAME[0], NOTRE_DAME[2], FACADE),
    ByEye(
        "Notre-Dame 2-3",
        *PARIS[1:],
        *NOTRE_DAME[1:],
        ((215, 65), (560, 65), (580, 590), (205, 590)),
    ),
    ByEye(
        "Montmartre, other light and distance",
        *("vismatch/outdoor/montmartre_close.jpg", "vismatch/outdoor/montmartre_far.jpg"),
        ((315, 195), (308, 351), (480, 350)),
        ((331, 216), (328, 375), (502, 374)),
        ((275, 180), (515, 180), (530, 370), (260, 370)),
    ),
    ByEye(
        "station hall, 4.5 times smaller",
        *("vismatch/indoor/gcs_close.jpg", "vismatch/indoor/gcs_far.jpg"),
        ((82, 168), (670, 168), (670, 275), (82, 275)),
        ((241, 195), (372, 195), (372, 219), (241, 219)),
        ((30, 5), (770, 5), (770, 270), (30, 270)),
    ),
)
# Klimt's picture as ViSP's cv_warp.py warps it.
WARPS = {
    "painting, quarter hidden, turned by 45": "affine_rot_45",
    "painting, turned by -67, 0.83 times": "affine_SRT",
    "painting, tilted": "perspective",
}
# Pairs of above whose second camera was held otherwise: (turn in degrees, scale).
TURNED = {
    "Notre-Dame 1-3": (90, 1.0),
    "Notre-Dame 2-3": (135, 0.8),
    "St Peter's, other years, behind an obelisk": (180, 0.4),
    "city from orbit and from a satellite": (-60, 1.0),
    "fresco, detail, tilted, 1.8 times larger": (45, 0.6),
}


def hard_pairs(data: Path) -> list[TestPair]:
    """Read the pairs and find their homographies."""
    visp = fetch("visp-images-data", data / "packages")
    visp = visp / "usr/share/visp-images-data/ViSP-images"
    vismatch = fetch_sdist("vismatch==1.2.0", data / "packages")
    easy = fetch_sdist("easy_local_features==0.8.29", data / "packages")
    folders = {
        "opencv": opencv_data(data),
        "vismatch": vismatch / "vismatch/assets/example_pairs",
        "easy": easy / "tests/assets",
    }
    seen = [by_eye(entry, folders) for entry in BY_EYE]
    known = {pair.name: pair for pair in seen}
    moved = [turned(known[name], *motion) for name, motion in TURNED.items()]
    return [boxed(data), *(warped(visp, name) for name in WARPS), *seen, *moved]


def flat(name: str, image_a: Image, image_b: Image, homography: Array, outline: Array) -> TestPair:
    """Make a pair whose truth is a homography inside an outline, as far as the second shows it."""
    height, width = image_b.shape[:2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    there = project(homography, np.asarray(outline, float)).astype(np.float32)
    _, shared = cv2.intersectConvexConvex(cv2.convexHull(there), frame)
    corners = project(np.linalg.inv(homography), shared.reshape(-1, 2).astype(float))
    queries = queries_of(image_a)
    hull = cv2.convexHull(corners.astype(np.float32))
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in queries]
    truth = np.where(np.array(inside)[:, None], project(homography, queries), np.nan)
    return TestPair(name, image_a, image_b, truth, homography, corners)


def reduced(path: Path) -> Image:
    """Read a picture with a longest side of at most LONG_SIDE."""
    image = read_rgb(path)
    factor = LONG_SIDE / max(image.shape[:2])
    return shrink(image, *(round(n * factor) for n in image.shape[1::-1])) if factor < 1 else image


def edges_of(gray: Image) -> Image:
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1)
    return cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))


def align(image_a: Image, image_b: Image, start: Array, outline: Array, edges: bool) -> Array:
    """Align what the outline of the first image holds with the second image, by ECC.

    A first image that shows it more than twice as large is reduced, since ECC does not blur what
    it leaves out.
    """
    there = project(start, outline)
    factor = float(np.sqrt(cv2.contourArea(there.astype(np.float32)) / area(outline)))
    size = np.array(image_a.shape[1::-1])
    reduction = np.diag([factor, factor, 1.0]) if factor < 0.5 else np.eye(3)
    small = shrink(image_a, *(size * reduction[0, 0]).round().astype(int))
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (small, image_b)]
    compared = [edges_of(image) for image in gray] if edges else gray
    found = (start @ np.linalg.inv(reduction)).astype(np.float32)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    for blur in BLURS:
        shown = np.zeros(gray[1].shape, np.uint8)
        polygon = project(found.astype(float) @ reduction, outline).round().astype(np.int32)
        cv2.fillPoly(shown, [polygon], 255)
        _, found = cv2.findTransformECC(*compared, found, cv2.MOTION_HOMOGRAPHY, until, shown, blur)
    return found.astype(float) @ reduction


def area(outline: Array) -> float:
    return float(cv2.contourArea(outline.astype(np.float32)))


def by_eye(entry: ByEye, folders: Mapping[str, Path]) -> TestPair:
    image_a, image_b = (
        reduced(folders[path.partition("/")[0]] / path.partition("/")[2])
        for path in (entry.image_a, entry.image_b)
    )
    points = np.float32(entry.points_a), np.float32(entry.points_b)
    if len(entry.points_a) == 3:
        start = np.vstack([cv2.getAffineTransform(*points), [0, 0, 1]])
    else:
        start, _ = cv2.findHomography(*points)
    outline = np.array(entry.outline, float)
    homography = align(image_a, image_b, start, outline, entry.edges)
    return flat(entry.name, image_a, image_b, homography, outline)


def boxed(data: Path) -> TestPair:
    """The box in a scene, with the outline of what the scene shows of it."""
    pair = box_in_scene(data)
    known = np.isfinite(pair.truth).all(1)
    queries = queries_of(pair.image_a)[known]
    homography, _ = cv2.findHomography(queries, pair.truth[known])
    outline = cv2.convexHull(queries.astype(np.float32)).reshape(-1, 2)
    return flat(
        "box among others, 2.2 times smaller", pair.image_a, pair.image_b, homography, outline
    )


def warped(visp: Path, name: str) -> TestPair:
    """One of ViSP's warps of a painting; its cv_warp.py states the matrices."""
    image_a = read_rgb(visp / "Klimt/Klimt.ppm")
    image_b = read_rgb(visp / f"warp/cv_warp_{WARPS[name]}_color_bilinear.png")
    height, width = image_a.shape[:2]
    homography = np.array([[1.8548, -0.0402, 114.9], [1.1209, 4.0106, 111], [0.0022, 0.0064, 1]])
    turn = {"affine_rot_45": (45, 1, 0, 0), "affine_SRT": (-67, 0.83, 17, -23)}.get(WARPS[name])
    if turn is not None:
        degrees, scale, x, y = turn
        cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
        shift = width / 2 + x, height / 2 + y
        homography = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    return flat(name, image_a, image_b, homography, corners)


def turned(pair: TestPair, degrees: float, scale: float) -> TestPair:
    """Turn and scale the second image of a pair as a whole."""
    height, width = pair.image_b.shape[:2]
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    sides = np.abs([[cos, sin], [sin, cos]]) @ [width, height]
    size = np.ceil(sides.round(6))
    motion = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    motion[:2, 2] = (size - 1) / 2 - motion[:2, :2] @ [(width - 1) / 2, (height - 1) / 2]
    image = pair.image_b
    if scale < 1:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(scale**-2 - 1))
    image = cv2.warpPerspective(image, motion, size.astype(int).tolist(), flags=cv2.INTER_CUBIC)
    name = f"{pair.name.partition(',')[0]}, camera turned by {degrees:g}"
    name += f", {scale:g} times" if scale != 1 else ""
    return replace(
        pair,
        name=name,
        image_b=image,
        truth=project(motion, pair.truth),
        homography=motion @ pair.homography,
    )


def relative_error(pair: TestPair, matcher: Matcher) -> tuple[float, float]:
    """Return the mean error of the outline's corners, and the seconds of CPU time it took.

    The error is a share of the outline's diagonal in the second image.
    """
    began = time.process_time()
    matched = matcher.match(pair.image_a, pair.image_b)
    seconds = time.process_time() - began
    error = corner_error(*matched, pair, matcher.within_px)
    there = project(pair.homography, pair.corners)
    return error / float(np.linalg.norm(np.ptp(there, 0))), seconds


def hard_tables(
    pairs: list[TestPair],
    compared: Mapping[str, Matcher],
    track: Callable[[str, int], Callable[[], None]],
) -> dict[str, str]:
    """Match every pair with every matcher; return how many are solved, and all errors."""
    advance = track("Hard real pairs", len(pairs))
    found = []
    for pair in pairs:
        found.append([relative_error(pair, matcher) for matcher in compared.values()])
        advance()
    errors, seconds = np.moveaxis(found, -1, 0)
    solved = errors <= SOLVED
    rows = {
        pair.name: [
            f"**{100 * error:.1f}**" if right else f"{min(100 * error, 100):.0f}"
            for error, right in zip(row, rights, strict=True)
        ]
        for pair, row, rights in zip(pairs, errors, solved, strict=True)
    }
    counts = {
        name: [str(count), f"{np.median(taken):.1f}", f"{taken.max():.1f}"]
        for name, count, taken in zip(compared, solved.sum(0), seconds.T, strict=True)
    }
    head = ["hard real pairs", f"solved, of {len(pairs)}", "CPU time a pair, s", "at most"]
    return {
        "hard-solved": table(head, counts),
        "hard": table(["error, % of the diagonal", *compared], rows),
    }
