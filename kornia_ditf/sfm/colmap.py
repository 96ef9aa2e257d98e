"""COLMAP databases: cameras, images, keypoints, matches and two-view geometries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage

_MAX_ERROR_PX = 4.0  # of an inlier of the two-view geometry
_FOCAL = 1.2
"""Focal length in longer sides of the image where none is known, as COLMAP guesses it."""


def write_database(
    graph: CorrespondenceGraph,
    path: Path,
    folder: Path | None = None,
    *,
    one_camera: bool = False,
) -> None:
    """Write a COLMAP database, a file that is not there yet, that its mapper reads as it is.

    The geometry of each pair is estimated by COLMAP from the inliers, so that the mapper finds
    what its own `matches_importer` would have written. COLMAP's first pixel has its centre at
    (0.5, 0.5), so half a pixel is added to all points. Focal lengths are read from the EXIF of the
    images in the folder; without it, 1.2 times the longer side is guessed.
    """
    from kornia_ditf.sfm.formats import import_sfm

    pycolmap = import_sfm("pycolmap")
    pycolmap.logging.minloglevel = max(pycolmap.logging.minloglevel, 2)
    pycolmap.set_random_seed(0)
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = _MAX_ERROR_PX
    options.ransac.random_seed = 0
    with pycolmap.Database.open(path) as database:
        known: dict[Any, Any] = {}
        cameras, numbers, points = [], [], []
        for image in graph.images:
            key = image.size if one_camera else image.name
            if key not in known:
                known[key] = _write_camera(pycolmap, database, image, folder)
            cameras.append(known[key])
            numbers.append(_write_image(pycolmap, database, image.name, known[key]))
            points.append(image.keypoints.numpy() + np.float32(0.5))
            database.write_keypoints(numbers[-1], points[-1])
        for pair in graph.pairs:
            a, b = pair.first, pair.second
            rows = pair.indices.numpy().astype(np.uint32)
            database.write_matches(numbers[a], numbers[b], rows)
            geometry = pycolmap.estimate_two_view_geometry(
                cameras[a],
                points[a].astype(np.float64),
                cameras[b],
                points[b].astype(np.float64),
                rows[pair.inliers.numpy()],
                options,
            )
            database.write_two_view_geometry(numbers[a], numbers[b], geometry)


def _write_camera(pycolmap: Any, database: Any, image: ViewedImage, folder: Path | None) -> Any:
    height, width = image.size
    focal, prior = _FOCAL * max(image.size), False
    if folder is not None:
        inferred = pycolmap.infer_camera_from_image(folder / image.name)
        if inferred.has_prior_focal_length:
            focal, prior = inferred.mean_focal_length(), True
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL",
        width=width,
        height=height,
        params=[focal, width / 2, height / 2, 0.0],
        has_prior_focal_length=prior,
    )
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig)
    return camera


def _write_image(pycolmap: Any, database: Any, name: str, camera: Any) -> int:
    image = pycolmap.Image(name=name, camera_id=camera.camera_id)
    image.image_id = database.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = camera.camera_id  # a rig was written for each camera, in their order
    frame.add_data_id(image.data_id)
    database.write_frame(frame)
    number: int = image.image_id
    return number
