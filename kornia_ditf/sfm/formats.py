"""Files of a correspondence graph: COLMAP's database, hloc's HDF5, NumPy and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import torch.nn.functional as F

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.extras import import_extra
from kornia_ditf.utils.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage
    from kornia_ditf.types import DescriptorMap

    Write = Callable[[str, npt.NDArray[Any]], Any]

SUFFIXES = (".db", ".h5", ".npz", ".json")

_MAX_ERROR_PX = 4.0  # of an inlier of COLMAP's two-view geometry
_FOCAL = 1.2
"""Focal length in longer sides of the image where none is known, as COLMAP guesses it."""


def check_format(path: Path) -> None:
    """Raise InvalidArgumentError or MissingExtraError unless a file of this name can be written."""
    if path.suffix not in SUFFIXES:
        raise InvalidArgumentError(
            f"an export's name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path}"
        )
    if path.suffix in (".db", ".h5"):
        import_sfm("pycolmap" if path.suffix == ".db" else "h5py")


def import_sfm(name: str) -> Any:
    """Import a module of the extra `sfm`; errors as `import_extra`."""
    return import_extra(name, f"{name} is not installed", "kornia-ditf[sfm]")


def save_graph(
    graph: CorrespondenceGraph, path: Path, folder: Path | None, one_camera: bool
) -> list[Path]:
    """Write a graph; see `CorrespondenceGraph.save`."""
    check_format(path)
    if path.suffix == ".h5":
        return _write_hloc(graph, path)
    if path.suffix == ".npz":
        with array_file(path) as write:
            _write_keypoints(graph.images, write)
            for pair in graph.pairs:
                names = f"{graph.images[pair.first].name}:{graph.images[pair.second].name}"
                write(f"{names}/matches", pair.indices.numpy())
                write(f"{names}/scores", pair.scores.float().numpy())
                write(f"{names}/inliers", pair.inliers.numpy())
        return [path]
    with atomic_write(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(json.dumps(_as_values(graph)), "utf-8")
        else:
            temporary.unlink()  # COLMAP writes into no file that is there
            _write_database(graph, temporary, folder, one_camera)
    return [path]


@contextmanager
def array_file(path: Path) -> Iterator[Write]:
    """Open a `.h5` or `.npz` file, whole or not at all; yields what writes an array by its name."""
    with atomic_write(path) as temporary:
        if path.suffix == ".h5":
            with import_sfm("h5py").File(temporary, "w", locking=False) as file:
                yield lambda name, array: file.create_dataset(name, data=array, track_times=False)
        else:
            with ZipFile(temporary, "w") as archive:
                yield partial(_write_npy, archive)


def write_features(path: Path, maps: Iterable[tuple[str, DescriptorMap]]) -> None:
    """Write the tokens of images as features, from names and descriptors read one by one.

    `.h5` for hloc and `.npz` hold keypoints and descriptors, and are written image by image; `.db`
    and `.json` hold keypoints alone.
    """
    from kornia_ditf.sfm.graph import CorrespondenceGraph, ViewedImage

    viewed = (
        (ViewedImage(name, map_.frame.image_size, map_.centres()), map_) for name, map_ in maps
    )
    if path.suffix in (".db", ".json"):
        CorrespondenceGraph(tuple(image for image, _ in viewed), ()).save(path)
        return
    with array_file(path) as write:
        for image, described in viewed:
            _write_keypoints([image], write)
            units = F.normalize(described.tokens[0].float(), dim=1)
            write(f"{image.name}/descriptors", units.T.half().numpy())


def _write_keypoints(images: Iterable[ViewedImage], write: Write) -> None:
    for image in images:
        write(f"{image.name}/keypoints", image.keypoints.numpy())
        write(f"{image.name}/scores", np.ones(len(image.keypoints), np.float16))
        write(f"{image.name}/image_size", np.array(image.size[::-1]))


def _write_hloc(graph: CorrespondenceGraph, path: Path) -> list[Path]:
    """Write features, and beside them the matches and the list of pairs, as hloc names them."""
    files = [path, *(path.with_name(f"{path.stem}-{name}") for name in ("matches.h5", "pairs.txt"))]
    with array_file(files[0]) as write:
        _write_keypoints(graph.images, write)
    lines = []
    with array_file(files[1]) as write:
        for pair in graph.pairs:
            first, second = graph.images[pair.first], graph.images[pair.second]
            lines.append(f"{first.name} {second.name}\n")
            a, b = pair.indices[pair.inliers].T.numpy()
            matched = np.full(len(first.keypoints), -1, np.int32)
            scores = np.zeros(len(first.keypoints), np.float16)
            matched[a], scores[a] = b, pair.scores[pair.inliers].half().numpy()
            group = "/".join(each.name.replace("/", "-") for each in (first, second))
            write(f"{group}/matches0", matched)
            write(f"{group}/matching_scores0", scores)
    with atomic_write(files[2]) as temporary:
        temporary.write_text("".join(lines), "utf-8")
    return files


def _as_values(graph: CorrespondenceGraph) -> dict[str, Any]:
    return {
        "images": [
            {
                "name": each.name,
                "size": list(each.size),
                "keypoints": each.keypoints.double().numpy().round(3).tolist(),
            }
            for each in graph.images
        ],
        "pairs": [
            {
                "images": [each.first, each.second],
                "matches": each.indices.tolist(),
                "scores": each.scores.double().numpy().round(6).tolist(),
                "inliers": each.inliers.tolist(),
            }
            for each in graph.pairs
        ],
    }


def _write_npy(archive: Any, name: str, array: npt.NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def _write_database(
    graph: CorrespondenceGraph,
    path: Path,
    folder: Path | None,
    one_camera: bool,
) -> None:
    """Write a COLMAP database, a file that is not there yet, that its mapper reads as it is.

    The geometry of each pair is estimated by COLMAP from the inliers, so that the mapper finds
    what its own `matches_importer` would have written. COLMAP's first pixel has its centre at
    (0.5, 0.5), so half a pixel is added to all points. Focal lengths are read from the EXIF of the
    images in the folder; without it, 1.2 times the longer side is guessed.
    """
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
            numbers.append(_write_view(pycolmap, database, image.name, known[key]))
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


def _write_view(pycolmap: Any, database: Any, name: str, camera: Any) -> int:
    image = pycolmap.Image(name=name, camera_id=camera.camera_id)
    image.image_id = database.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = camera.camera_id  # a rig was written for each camera, in their order
    frame.add_data_id(image.data_id)
    database.write_frame(frame)
    number: int = image.image_id
    return number
