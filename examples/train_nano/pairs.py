"""Read pairs of images that took no part in training, with the ground truth of every query.

Seven are the trial's: graf 1-3, aloe and motorcycle, and four photographs under a homography and
other light. The further ones are real: a box in a scene, and boards of squares in two cameras.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from photographs import fetch, read_rgb
from views import Array, Image, project, token_centres

QUERY_PX = 8
WARP_SEED = 3
# The box's corner, the corners of its photograph and of its inner line, as seen by eye.
BOX_BY_EYE = ((4, 4), (141.3, 19.3), (139.3, 202), (21, 209.3))
SCENE_BY_EYE = ((119.4, 162), (186.2, 177.2), (166, 271.2), (103.6, 261.2))
# What of the box the scene shows.
SCENE_OUTLINE = (
    *((120, 163), (185, 169), (232, 172), (228, 200), (248, 246)),
    *((243, 275), (167, 270), (116, 264), (103, 260)),
)
BOARD = (9, 6)
BOARDS = ("01", "06", "09", "13")


@dataclass(frozen=True, eq=False)
class TestPair:
    """Two images and where each query of the first lies in the second.

    Attributes:
        name: what the pair shows.
        image_a: RGB, shape (H, W, 3).
        image_b: RGB, shape (H', W', 3).
        truth: (x, y) in pixels of the second image, NaN where unknown, shape (N, 2).
        homography: from the first image to the second, where it holds for the whole image, or
            inside `outline`.
        outline: the corners (x, y) in the first image of what both show, shape (M, 2); None is
            the whole image.
    """

    name: str
    image_a: Image
    image_b: Image
    truth: Array
    homography: Array | None = None
    outline: Array | None = None

    @property
    def corners(self) -> Array:
        """The corners by which a homography is judged, shape (M, 2)."""
        if self.outline is not None:
            return self.outline
        height, width = self.image_a.shape[:2]
        return np.array([[0, 0], [width, 0], [width, height], [0, height]], float)


def shrink(image: Image, width: int, height: int) -> Image:
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def to_size(old: tuple[int, int], new: tuple[int, int]) -> Array:
    """Return the homography of pixels when an image of (width, height) is resized."""
    scale = np.array(new) / np.array(old)
    matrix = np.diag([*scale, 1.0])
    matrix[:2, 2] = (scale - 1) / 2  # (0, 0) is the centre of the first pixel
    return matrix


def queries_of(image: Image) -> Array:
    """Return the points (x, y) that are looked for, or among which is searched."""
    return token_centres(image.shape[:2], QUERY_PX)


def trial_pairs(data: Path, warp_seed: int = WARP_SEED) -> list[TestPair]:
    """Read graf, aloe and motorcycle, and warp four photographs, from packages alone."""
    return [graf(data), aloe(data), motorcycle(), *warped_pairs(warp_seed)]


def further_pairs(data: Path) -> list[TestPair]:
    """Read real pairs of other kinds."""
    return [box_in_scene(data), *(board(data, number) for number in BOARDS)]


def fetch_sdist(requirement: str, folder: Path) -> Path:
    """Download and unpack a source distribution, once; return the folder that holds its files."""
    name, _, version = requirement.partition("==")
    unpacked = folder / f"{name}-{version}"
    if not unpacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # Without isolation nothing is built: pip needs the name of the package alone.
        options = ["--no-deps", "--no-build-isolation", "--no-binary", name, "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        subprocess.run(command, check=True)
        shutil.unpack_archive(folder / f"{unpacked.name}.tar.gz", folder, filter="data")
    return unpacked


def opencv_data(data: Path) -> Path:
    return fetch("opencv-doc", data / "packages") / "usr/share/doc/opencv-doc/examples/data"


def package_folder(package: str) -> Path:
    """Find an installed package without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install scikit-image scikit-learn: some pairs are in them")
    return Path(spec.origin).parent


def skimage_data() -> Path:
    return package_folder("skimage") / "data"


def graf(data: Path) -> TestPair:
    """A painted wall from two places; the homography comes with it."""
    folder, size = opencv_data(data), (480, 384)
    storage = cv2.FileStorage(str(folder / "H1to3p.xml"), cv2.FILE_STORAGE_READ)
    given = np.asarray(storage.getFirstTopLevelNode().mat(), dtype=np.float64)
    fit = to_size((800, 640), size)
    homography = fit @ given @ np.linalg.inv(fit)
    image_a, image_b = (shrink(read_rgb(folder / f"graf{i}.png"), *size) for i in (1, 3))
    truth = project(homography, queries_of(image_a))
    return TestPair("graf", image_a, image_b, truth, homography)


def aloe(data: Path) -> TestPair:
    """A plant in two cameras, with its measured disparity; what one camera hides counts too."""
    folder = opencv_data(data)
    disparity = read_rgb(folder / "aloeGT.png")[..., 0].astype(np.float64)
    image_a, image_b = (shrink(read_rgb(folder / f"aloe{i}.jpg"), 480, 416) for i in "LR")
    return TestPair("aloe", image_a, image_b, by_disparity(queries_of(image_a), disparity, image_a))


def motorcycle() -> TestPair:
    """A motorcycle in two cameras, with its measured disparity."""
    folder = skimage_data()
    with np.load(folder / "motorcycle_disp.npz") as file:
        disparity = file[file.files[0]].astype(np.float64)
    image_a, image_b = (
        shrink(read_rgb(folder / f"motorcycle_{side}.png"), 480, 320) for side in ("left", "right")
    )
    truth = by_disparity(queries_of(image_a), disparity, image_a)
    return TestPair("motorcycle", image_a, image_b, truth)


def by_disparity(queries: Array, disparity: Array, image: Image) -> Array:
    """Move the queries of a resized left image by the full-size disparity; 0 is unknown."""
    full_height, full_width = disparity.shape
    height, width = image.shape[:2]
    full = project(to_size((width, height), (full_width, full_height)), queries)
    x, y = np.clip(full.round(), 0, [full_width - 1, full_height - 1]).astype(int).T
    known = disparity[y, x]
    truth = queries.copy()
    truth[:, 0] -= known * width / full_width
    truth[~np.isfinite(known) | (known <= 0)] = np.nan
    return truth


def sklearn_images() -> Path:
    return package_folder("sklearn") / "datasets" / "images"


def warped_pairs(seed: int = WARP_SEED) -> list[TestPair]:
    """Turn, zoom, tilt and relight four photographs."""
    rng = np.random.default_rng(seed)
    names = ("astronaut", "coffee", "chelsea")
    paths = [*(skimage_data() / f"{name}.png" for name in names), sklearn_images() / "china.jpg"]
    return [warped_pair(path.stem, read_rgb(path), rng) for path in paths]


def warped_pair(name: str, image: Image, rng: np.random.Generator) -> TestPair:
    width, height = 384, 320
    image = shrink(image, width, height)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(15, 30))
    zoom = rng.uniform(0.75, 1.25)
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = zoom * np.array([[cos, -sin], [sin, cos]])
    middle = np.array([width / 2, height / 2])
    moved = (corners - middle) @ rotation.T + middle + rng.uniform(-25, 25, (4, 2))
    homography = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    other = cv2.warpPerspective(
        image, homography, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    truth = project(homography, queries_of(image))
    return TestPair(f"warped-{name}", image, relit(other, rng), truth)


def relit(image: Image, rng: np.random.Generator) -> Image:
    """Make an image darker and yellower, with noise."""
    light = 255 * (image / 255.0) ** 1.4 * np.array([1.0, 0.92, 0.85])
    return np.clip(light + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def box_in_scene(data: Path) -> TestPair:
    """A box, and the same box partly hidden among others.

    Four points by eye begin, and the alignment of the grey values themselves (ECC) ends, the
    search for the homography; no descriptor takes part.
    """
    folder = opencv_data(data)
    box, scene = read_rgb(folder / "box.png"), read_rgb(folder / "box_in_scene.png")
    shown = np.zeros(scene.shape[:2], np.uint8)
    cv2.fillPoly(shown, [np.array(SCENE_OUTLINE, np.int32)], 255)
    start = cv2.getPerspectiveTransform(np.float32(BOX_BY_EYE), np.float32(SCENE_BY_EYE))
    found = start.astype(np.float32)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-7)
    for blur in (9, 5):
        _, found = cv2.findTransformECC(
            box[..., 0], scene[..., 0], found, cv2.MOTION_HOMOGRAPHY, until, shown, blur
        )
    size = (320, 224)
    back = np.linalg.inv(to_size(box.shape[1::-1], size))
    image_a = shrink(box, *size)
    truth = project(found @ back, queries_of(image_a))
    x, y = np.clip(truth.round(), 0, np.array(shown.shape[::-1]) - 1).astype(int).T
    truth[shown[y, x] == 0] = np.nan
    return TestPair("box-in-scene", image_a, scene, truth)


def board(data: Path, number: str) -> TestPair:
    """A board of equal squares in two cameras; its corners, found by OpenCV, give the truth."""
    folder, size = opencv_data(data), (480, 360)
    images, corners = [], []
    for side in ("left", "right"):
        image = read_rgb(folder / f"{side}{number}.jpg")
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found, at = cv2.findChessboardCorners(gray, BOARD)
        if not found:
            raise ValueError(f"no board of {BOARD} corners in {side}{number}.jpg")
        until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
        at = cv2.cornerSubPix(gray, at, (5, 5), (-1, -1), until).reshape(-1, 2)
        images.append(shrink(image, *size))
        corners.append(project(to_size(image.shape[1::-1], size), at))
    homography, _ = cv2.findHomography(*corners)
    queries = queries_of(images[0])
    outline = cv2.convexHull(corners[0].astype(np.float32))
    on_board = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) >= 0 for x, y in queries]
    truth = np.where(np.array(on_board)[:, None], project(homography, queries), np.nan)
    return TestPair(f"board-{number}", *images, truth)
