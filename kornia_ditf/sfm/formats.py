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
    from kornia_ditf.sfm.colmap import write_database

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
            write_database(graph, temporary, folder, one_camera=one_camera)
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
