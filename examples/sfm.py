"""Reconstruct a scene from its photographs with COLMAP, from matches of several matchers.

Without --images, views of a corner of two walls are rendered: the shipped photographs of a painted
wall and of a garage, at a right angle. There the cameras are known, and the error of their
positions is printed too. Needs `pip install 'kornia-ditf[sfm]'`.

    python examples/sfm.py --matchers nano,nano@sift,sift
    python examples/sfm.py --images photographs/ --matchers nano,sift
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"
SIZE = (480, 640)
FOCAL = 600.0


def render(folder: Path, views: int) -> dict[str, Any]:
    """Render photographs of the corner into a folder; returns the cameras' centres by name."""
    wall_a, wall_b = (
        cv2.imread(str(DATA / f"{name}_a.jpg")) for name in ("graffiti", "motorcycle")
    )
    # Corner, and the two edges that span the wall.
    walls = [
        (np.array([-3.6, -1.6, -3.6]), np.array([3.6, 0, 3.6]), np.array([0, 3.6, 0]), wall_a),
        (np.array([0, -1.6, 0]), np.array([3.6, 0, -3.6]), np.array([0, 3.4, 0]), wall_b),
    ]
    generator = np.random.default_rng(0)
    centres = {}
    for view, angle in enumerate(np.deg2rad(np.linspace(-32, 32, views))):
        distance = 6.5 + 0.6 * np.sin(2 * view)
        centre = np.array(
            [distance * np.sin(angle), 0.4 * np.sin(1.7 * view), -distance * np.cos(angle)]
        )
        image = see(centre, np.array([0.3 * np.sin(view), 0.1, -1.0]), walls)
        # Other light in each, and noise.
        image = image * (1 + 0.1 * np.sin(3 * view)) + generator.normal(0, 3, image.shape)
        name = f"view{view:02d}.png"
        cv2.imwrite(str(folder / name), np.clip(image, 0, 255).astype(np.uint8))
        centres[name] = centre
    return centres


def see(centre: Any, target: Any, walls: list[Any], oversampled: int = 2) -> Any:
    """Render what a camera sees that looks at a target."""
    height, width = (side * oversampled for side in SIZE)
    ahead = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0, 1, 0], ahead)
    right /= np.linalg.norm(right)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    focal = FOCAL * oversampled
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], -1)
    rays = rays @ np.stack([right, np.cross(ahead, right), ahead])
    image, nearest = np.full((height, width, 3), 90, np.uint8), np.full((height, width), np.inf)
    for corner, across, down, texture in walls:
        normal = np.cross(across, down)
        depth = ((corner - centre) @ normal) / (rays @ normal)
        hit = centre + rays * depth[..., None] - corner
        u, v = hit @ across / (across @ across), hit @ down / (down @ down)
        seen = (depth > 0) & (depth < nearest) & (u > 0) & (u < 1) & (v > 0) & (v < 1)
        places = (
            (each * side).astype(np.float32)
            for each, side in ((u, texture.shape[1]), (v, texture.shape[0]))
        )
        drawn = cv2.remap(texture, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image[seen], nearest[seen] = drawn[seen], depth[seen]
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA).astype(float)


def reconstruct(images: Path, matcher: str, work: Path) -> tuple[Any, Any]:
    """Match the images and run COLMAP's mapper; returns the graph and the largest model."""
    name, _, detector = matcher.partition("@")
    options = {"detector": detector, "ratio": 0.95} if detector else {}
    found = kd.match_folder(images, kd.load_matcher(name, **options))
    found.graph.save(work / "database.db", folder=images, one_camera=True)
    pycolmap.set_random_seed(0)
    settings = pycolmap.IncrementalPipelineOptions(num_threads=1)
    models = pycolmap.incremental_mapping(work / "database.db", images, work, settings)
    return found.graph, max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def camera_error(model: Any, centres: dict[str, Any]) -> float:
    """Align the model to the true cameras; their median distance, relative to the scene's size."""
    found = [model.images[number] for number in sorted(model.reg_image_ids())]
    a = np.array([each.projection_center() for each in found])
    b = np.array([centres[each.name] for each in found])
    transform = pycolmap.estimate_sim3d(a, b)
    apart = (
        np.linalg.norm(transform * a - b, axis=1) if transform is not None else np.array([np.inf])
    )
    return float(np.median(apart) / np.linalg.norm(np.ptp(b, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of photographs of one scene")
    parser.add_argument("--matchers", default="nano,nano@sift,sift", help="NAME or NAME@DETECTOR")
    parser.add_argument("--views", type=int, default=10, help="how many to render")
    arguments = parser.parse_args()
    pycolmap.logging.minloglevel = 3
    columns = ("matcher", "registered", "points", "track", "error px", "focal", "cameras", "CPU s")
    print("".join(each.rjust(12) for each in columns))
    with tempfile.TemporaryDirectory() as folder:
        images, centres = arguments.images, None
        if images is None:
            images = Path(folder) / "images"
            images.mkdir()
            centres = render(images, arguments.views)
        for matcher in arguments.matchers.split(","):
            work = Path(folder) / matcher
            work.mkdir()
            begin = time.process_time()
            graph, model = reconstruct(images, matcher, work)
            seconds = time.process_time() - begin
            if model is None:
                print(f"{matcher:>12}  no reconstruction")
                continue
            camera = next(iter(model.cameras.values()))
            row = (
                matcher,
                f"{model.num_reg_images()}/{len(graph.images)}",
                model.num_points3D(),
                f"{model.compute_mean_track_length():.2f}",
                f"{model.compute_mean_reprojection_error():.2f}",
                f"{camera.mean_focal_length():.0f}",
                "-" if centres is None else f"{100 * camera_error(model, centres):.2f} %",
                f"{seconds:.0f}",
            )
            print("".join(str(each).rjust(12) for each in row))


if __name__ == "__main__":
    main()
