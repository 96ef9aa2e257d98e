"""Measure the relative pose of calibrated cameras on rendered scenes and on what packages carry.

Rooms with boxes in them, papered with photographs that took no part in training, are rendered by
tracing rays to planes; hilly photographs come from the package's own synthetic pairs. ViSP's
simulated castle states its cameras, and OpenCV's stereo boards are calibrated by their own corners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from curves import unseen_photographs
from matchers import Matcher
from measure import table
from pairs import BOARD, opencv_data, shrink
from photographs import fetch, read_rgb
from views import Array, Image

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.datasets.relief import random_relief
from kornia_ditf.datasets.relief import render as render_relief
from kornia_ditf.metrics.pose import PoseAccuracy
from kornia_ditf.protocols.matched import score_matches
from kornia_ditf.protocols.presets import find_protocol

SIZE = (384, 512)
FOCAL = 420.0
ROOMS = 6
RELIEFS = 6
RELIEF_STRENGTH = 0.3
CASTLE = ((1, 16), (6, 21), (11, 26), (16, 31), (20, 35), (24, 39))
CASTLE_CAMERA = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])
SQUARES = tuple(f"{n:02d}" for n in range(1, 15) if n != 10)
# sideways in metres, forwards, and degrees about the optical axis: from, to
MOTIONS = {
    "rooms, near": ((0.3, 0.7), (0.0, 0.3), (-5, 5)),
    "rooms, far": ((1.5, 2.5), (0.0, 1.0), (-10, 10)),
    "rooms, turned": ((0.7, 1.5), (0.0, 0.5), (45, 180)),
}


@dataclass(frozen=True, eq=False)
class Plane:
    """A picture in space: a corner, and its two sides, shape (3,) each, in metres."""

    corner: Array
    along: Array
    down: Array
    picture: Image


@dataclass(frozen=True, eq=False)
class PosedPair:
    """Two images with their cameras and the pose from the first to the second."""

    group: str
    image_a: Image
    image_b: Image
    known: Pair


def posed(
    group: str, name: str, images: Sequence[Image], cameras: Sequence[Array], pose: Array
) -> PosedPair:
    nothing = torch.empty(0, 2, dtype=torch.float64)
    known = Pair.of(
        name,
        group,
        image=(Path(f"{name}-a"), Path(f"{name}-b")),
        size=[image.shape[:2] for image in images],
        points=(nothing, nothing),
        camera=[torch.from_numpy(camera) for camera in cameras],
        pose=torch.from_numpy(pose),
    )
    return PosedPair(group, images[0], images[1], known)


def trace(planes: Sequence[Plane], camera: Array, pose: Array, points: Array) -> tuple[Array, ...]:
    """Find what a camera sees at pixels.

    Args:
        planes: the scene.
        camera: calibration matrix, shape (3, 3).
        pose: takes points of the scene to the camera, shape (4, 4).
        points: (x, y) in pixels, shape (K, 2).

    Returns:
        the depth (infinite where nothing is), the number of the plane, and the place (u, v) in its
        picture from 0 to 1, shapes (K,), (K,) and (K, 2).
    """
    rotation, centre = pose[:3, :3], -pose[:3, :3].T @ pose[:3, 3]
    rays = np.c_[points, np.ones(len(points))] @ np.linalg.inv(camera).T @ rotation
    depth, number = np.full(len(points), np.inf), np.full(len(points), -1)
    place = np.zeros((len(points), 2))
    for index, plane in enumerate(planes):
        # depth * ray = u * along + v * down + corner - centre
        basis = np.stack([plane.along, plane.down, plane.corner - centre], 1)
        seen = rays @ np.linalg.inv(basis).T
        with np.errstate(divide="ignore", invalid="ignore"):
            uv, away = seen[:, :2] / seen[:, 2:], 1 / seen[:, 2]
        nearer = (away > 0) & (away < depth) & (uv >= 0).all(1) & (uv <= 1).all(1)
        depth[nearer], number[nearer], place[nearer] = away[nearer], index, uv[nearer]
    return depth, number, place


def render(planes: Sequence[Plane], camera: Array, pose: Array, size: tuple[int, int]) -> Image:
    """Render the scene; four rays a pixel."""
    height, width = size
    x, y = np.meshgrid(np.arange(2 * width), np.arange(2 * height))
    points = (np.stack([x, y], -1).reshape(-1, 2) - 0.5) / 2
    _, number, place = trace(planes, camera, pose, points)
    number, place = number.reshape(x.shape), place.reshape(*x.shape, 2)
    colours = np.zeros((*x.shape, 3), np.uint8)
    for index, plane in enumerate(planes):
        u, v = np.moveaxis(place * plane.picture.shape[1::-1] - 0.5, -1, 0).astype(np.float32)
        seen = cv2.remap(plane.picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colours[number == index] = seen[number == index]
    return shrink(colours, width, height)


def room(rng: np.random.Generator, pictures: Sequence[Image]) -> list[Plane]:
    """A room of 8 x 4 x 10 metres with four boxes, each side with another picture; y points down.

    The first camera stands at (0, 0, 0) and looks along z.
    """
    x, y, z = np.eye(3)
    order = iter(rng.permutation(len(pictures)).tolist() * 4)
    sides = [
        (np.array([-4, -2.5, 9]), 8 * x, 4 * y),
        (np.array([-4, -2.5, -1]), 10 * z, 4 * y),
        (np.array([4, -2.5, 9]), -10 * z, 4 * y),
        (np.array([-4, 1.5, 9]), 8 * x, -10 * z),
        (np.array([-4, -2.5, -1]), 8 * x, 10 * z),
    ]
    for left in (-2.6, -1.0, 0.6, 1.9):
        turn, (width, depth, height) = rng.uniform(-0.6, 0.6), rng.uniform(0.7, 1.4, 3)
        along, back = width * (np.cos(turn) * x + np.sin(turn) * z), np.cos(turn) * z
        back = depth * (back - np.sin(turn) * x)
        corner = np.array([left, 1.5 - height, rng.uniform(4, 6.5)])
        sides += [(corner, along, height * y), (corner + back, -back, height * y)]
        sides += [(corner + along, back, height * y), (corner + back, along, -back)]
    return [Plane(*side, pictures[next(order)]) for side in sides]


def look(rng: np.random.Generator, motion: tuple[tuple[float, float], ...], target: Array) -> Array:
    """Draw a second camera that looks near a target; return the pose of the scene in it."""
    sideways, forwards, roll = (rng.uniform(*bounds) for bounds in motion)
    side = rng.choice([-1, 1])
    centre = np.array([side * sideways, rng.uniform(-0.2, 0.2), forwards])
    ahead = target + rng.uniform(-0.4, 0.4, 3) - centre
    ahead /= np.linalg.norm(ahead)
    right = np.cross([0, 1, 0], ahead)
    right /= np.linalg.norm(right)
    upright = np.stack([right, np.cross(ahead, right), ahead])
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0, 0, np.deg2rad(side * roll)]))[0] @ upright
    pose[:3, 3] = -pose[:3, :3] @ centre
    return pose


def pictures_of(data: Path) -> list[Image]:
    """Read what papers the rooms: photographs of packages that nothing was trained or chosen on."""
    names = (
        "home.jpg",
        "building.jpg",
        "baboon.jpg",
        "fruits.jpg",
        "aero1.jpg",
        "starry_night.jpg",
    )
    found = [read_rgb(opencv_data(data) / name) for name in names]
    return [*unseen_photographs().values(), *found]


def room_pairs(data: Path) -> list[PosedPair]:
    height, width = SIZE
    camera = np.array([[FOCAL, 0, (width - 1) / 2], [0, FOCAL, (height - 1) / 2], [0, 0, 1]])
    pictures, found = pictures_of(data), []
    for group, motion in MOTIONS.items():
        for number in range(ROOMS):
            rng = np.random.default_rng((number, len(group)))
            planes, pose = room(rng, pictures), look(rng, motion, np.array([0, 0.2, 6]))
            images = [render(planes, camera, at, SIZE) for at in (np.eye(4), pose)]
            found.append(posed(group, f"{group}-{number}", images, (camera, camera), pose))
    return found


def relief_pairs() -> list[PosedPair]:
    """Photographs bent into hills, and seen by a camera that moved around them."""
    found = []
    for number, (name, picture) in enumerate(list(unseen_photographs().items())[:RELIEFS]):
        relief = random_relief(np.random.default_rng(number), picture.shape[:2], RELIEF_STRENGTH)
        images = picture, render_relief(picture, relief)
        found.append(posed("hills", f"hills-{name}", images, (relief.camera,) * 2, relief.pose))
    return found


def castle_pairs(data: Path) -> list[PosedPair]:
    """Frames of a simulated flight around a toy castle with little texture."""
    folder = fetch("visp-images-data", data / "packages")
    folder /= "usr/share/visp-images-data/ViSP-images/mbt-depth/Castle-simu"
    found = []
    for pair in CASTLE:
        images = [read_rgb(folder / f"Images/Image_{n:04d}.pgm") for n in pair]
        first, second = (np.loadtxt(folder / f"CameraPose/Camera_{n:03d}.txt") for n in pair)
        pose = second @ np.linalg.inv(first)
        found.append(
            posed("castle", f"castle-{pair[0]}-{pair[1]}", images, (CASTLE_CAMERA,) * 2, pose)
        )
    return found


def stereo_pairs(data: Path) -> list[PosedPair]:
    """A person with a board before two cameras, which the corners of all boards calibrate."""
    folder = opencv_data(data)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    images: list[list[Image]] = [[], []]
    corners: list[list[Array]] = [[], []]
    for number in SQUARES:
        for at, side in enumerate(("left", "right")):
            image = read_rgb(folder / f"{side}{number}.jpg")
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            _, seen = cv2.findChessboardCorners(gray, BOARD)
            corners[at].append(cv2.cornerSubPix(gray, seen, (5, 5), (-1, -1), until))
            images[at].append(image)
    places = np.zeros((BOARD[0] * BOARD[1], 3), np.float32)
    places[:, :2] = np.mgrid[: BOARD[0], : BOARD[1]].T.reshape(-1, 2)
    boards, size = [places] * len(SQUARES), images[0][0].shape[1::-1]
    alone = [cv2.calibrateCamera(boards, seen, size, None, None)[1:3] for seen in corners]
    found = cv2.stereoCalibrate(
        boards, *corners, *alone[0], *alone[1], size, flags=cv2.CALIB_FIX_INTRINSIC
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = found[5], found[6].ravel()
    cameras = [camera for camera, _ in alone]
    straight = [
        [cv2.undistort(x, *lens) for x in row] for row, lens in zip(images, alone, strict=True)
    ]
    return [
        posed("stereo boards", f"board-{number}", both, cameras, pose)
        for number, *both in zip(SQUARES, *straight, strict=True)
    ]


def posed_pairs(data: Path) -> list[PosedPair]:
    return [*room_pairs(data), *relief_pairs(), *castle_pairs(data), *stereo_pairs(data)]


def pose_tables(
    pairs: Sequence[PosedPair],
    compared: Mapping[str, Matcher],
    track: Callable[[str, int], Callable[[], None]],
) -> dict[str, str]:
    """Estimate every pose from every matcher's matches; return the areas under the error curve."""
    protocol = find_protocol("plain-pose")
    assert protocol.pose is not None
    # One threshold and a faster estimator than the preset's: six RANSACs a pair would take hours.
    how = replace(protocol.pose, estimator="cv2-magsac", thresholds=(1.0,))
    protocol = replace(protocol, name="rendered-pose", pose=how)
    advance = track("Poses", len(pairs))
    groups = list(dict.fromkeys(pair.group for pair in pairs))
    scores = {(name, group): PoseAccuracy(how.angles) for name in compared for group in groups}
    for pair in pairs:
        for name, matcher in compared.items():
            matched = matcher.match(pair.image_a, pair.image_b)
            sources, predicted = (torch.from_numpy(np.asarray(at, np.float64)) for at in matched)
            cv2.setRNGSeed(0)
            found = score_matches(sources, predicted, pair.known, protocol).scores
            scores[name, pair.group].update(found["pose_error@1"])
        advance()
    rows = {}
    for name in compared:
        areas = [scores[name, group].compute().auc for group in groups]
        mean = {angle: float(np.mean([area[angle] for area in areas])) for angle in how.angles}
        rows[name] = [
            " / ".join(f"{100 * area[angle]:.0f}" for angle in how.angles)
            for area in (*areas, mean)
        ]
    counts = [sum(pair.group == group for pair in pairs) for group in groups]
    head = [f"{group} ({count})" for group, count in zip(groups, counts, strict=True)]
    return {"pose": table(["pose, AUC@5 / 10 / 20 degrees, %", *head, "mean"], rows)}
