"""Small random data sets in exactly the layouts that are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from blobs import write_blobs
from PIL import Image


def _points(size: tuple[int, int], count: int, generator: np.random.Generator) -> list[list[int]]:
    """Points at nearly the same places of any image, as parts of its sides."""
    places = np.random.default_rng(count).random((count, 2)) * 0.8 + 0.1
    places = np.clip(places + generator.normal(0, 0.02, places.shape), 0, 0.99)
    return [[int(x), int(y)] for x, y in places * [size[1], size[0]]]


def spair(root: Path, *, pairs: int = 3, seed: int = 0) -> Path:
    """SPair-71k with two categories, three images each."""
    generator = np.random.default_rng(seed)
    place, number = root / "SPair-71k", 0
    listed = []
    for category in ("cat", "train"):
        sizes = {
            f"2008_00000{i}": (int(h), int(w))
            for i, (h, w) in enumerate(generator.integers(40, 90, (3, 2)))
        }
        known: dict[str, dict[int, list[int]]] = {}
        boxes = {}
        for name, size in sizes.items():
            write_blobs(place / "JPEGImages" / category / f"{name}.jpg", generator, size)
            chosen = generator.permutation(12)[:8]
            points = _points(size, 12, generator)
            known[name] = {int(i): points[i] for i in chosen}
            boxes[name] = [2, 3, size[1] - 4, size[0] - 5]
            annotation = place / "ImageAnnotation" / category / f"{name}.json"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(
                json.dumps(
                    {
                        "filename": f"{name}.jpg",
                        "image_width": size[1],
                        "image_height": size[0],
                        "image_depth": 3,
                        "category": category,
                        "bndbox": boxes[name],
                        "kps": {str(i): known[name].get(i) for i in range(30)},
                        "azimuth_id": 0,
                    }
                )
            )
        names = list(sizes)
        for index in range(pairs):
            a, b = names[index % 3], names[(index + 1) % 3]
            shared = sorted(set(known[a]) & set(known[b]))
            number += 1
            name = f"{number:06d}-{a}-{b}:{category}"
            listed.append(name)
            path = place / "PairAnnotation" / "test" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps(
                    {
                        "filename": name,
                        "src_imname": f"{a}.jpg",
                        "trg_imname": f"{b}.jpg",
                        "src_imsize": [sizes[a][1], sizes[a][0], 3],
                        "trg_imsize": [sizes[b][1], sizes[b][0], 3],
                        "src_bndbox": boxes[a],
                        "trg_bndbox": boxes[b],
                        "category": category,
                        "src_pose": "Unspecified",
                        "trg_pose": "Unspecified",
                        "src_kps": [known[a][i] for i in shared],
                        "trg_kps": [known[b][i] for i in shared],
                        "kps_ids": [str(i) for i in shared],
                        "mirror": 0,
                        "viewpoint_variation": 1,
                        "scale_variation": 0,
                        "truncation": 0,
                        "occlusion": 0,
                    }
                )
            )
    for layout, some in (("large", listed), ("small", listed[::2])):
        path = place / "Layout" / layout / "test.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(some) + "\n")
    return place


_SPECIES = (("Felidae", "cat"), ("Felidae", "lion"), ("Canidae", "dog"))


def ap10k(root: Path, *, seed: int = 0) -> Path:
    """AP-10K with three species of two families, two images each, and a pair of each kind."""
    generator = np.random.default_rng(seed)
    place = root / "ap-10k"
    images: dict[str, list[str]] = {}
    for family, species in _SPECIES:
        for _ in range(2):
            height, width = (int(v) for v in generator.integers(40, 90, 2))
            number = sum(map(len, images.values())) + 1
            name = f"{number:017d}"
            path = place / "JPEGImages" / family / species / f"{name}.jpg"
            write_blobs(path, generator, (height, width))
            keypoints: list[float] = []
            for x, y in _points((height, width), 17, generator):
                v = int(generator.choice([0, 1, 2], p=[0.2, 0.2, 0.6]))
                keypoints += [x, y, v] if v else [0, 0, 0]
            path = place / "ImageAnnotation" / family / species / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                json.dumps(
                    {
                        "id": number,
                        "bbox": [3, 4, width - 10, height - 12],
                        "keypoints": keypoints,
                        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
                        "width": width,
                        "height": height,
                        "name": species,
                        "supercategory": family,
                    }
                )
            )
            images.setdefault(species, []).append(f"{family}/{species}/{name}")

    def pair(split: str, a: str, b: str, category: str) -> None:
        stem = f"{Path(a).name}-{Path(b).name}:{category}.json"
        path = place / "PairAnnotation" / split / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                {
                    f"{side}_json_path": f"data/ap-10k/ImageAnnotation/{name}.json"
                    for side, name in (("src", a), ("trg", b))
                }
            )
        )

    for split in ("trn", "val", "test"):
        for species, names in images.items():
            pair(split, *names, species)
    for split in ("val", "test"):
        pair(f"{split}_cross_species", images["cat"][0], images["lion"][1], "Felidae")
        pair(f"{split}_cross_family", images["cat"][0], images["dog"][1], "all")
    return place


def pf_pascal(root: Path, *, seed: int = 0) -> Path:
    """PF-PASCAL with a list that holds points (test) and one that does not (trn)."""
    from scipy.io import savemat

    generator = np.random.default_rng(seed)
    place = root / "PF-dataset-PASCAL"
    rows, bare = (
        ["source_image,target_image,class,XA,YA,XB,YB"],
        ["source_image,target_image,class,flip"],
    )
    for number, category in ((1, "aeroplane"), (12, "dog")):
        names = [f"2009_{number:03d}{i}" for i in range(2)]
        points: list[list[list[int]]] = []
        for name in names:
            size = (int(generator.integers(40, 90)), int(generator.integers(40, 90)))
            write_blobs(place / "JPEGImages" / f"{name}.jpg", generator, size)
            points.append(_points(size, 6, generator))
            kps = np.array(points[-1], float)
            kps[-1] = np.nan
            folder = place / "Annotations" / category
            folder.mkdir(parents=True, exist_ok=True)
            savemat(
                folder / f"{name}.mat", {"kps": kps, "bbox": [[1, 2, size[1] - 3, size[0] - 4]]}
            )
        paths = [f"PF-dataset-PASCAL/JPEGImages/{name}.jpg" for name in names]
        cells = [";".join(f"{p[axis]}.5" for p in side) for side in points for axis in (0, 1)]
        rows.append(",".join([*paths, str(number), *cells]))
        bare.append(",".join([*paths, str(number), "0"]))
    (place / "test_pairs_pf_pascal.csv").write_text("\n".join(rows) + "\n")
    (place / "trn_pairs_pf_pascal.csv").write_text("\n".join(bare) + "\n")
    return place


def pf_willow(root: Path, *, seed: int = 0) -> Path:
    """PF-WILLOW with two categories and a pair of each."""
    generator = np.random.default_rng(seed)
    place = root / "PF-dataset"
    header = ["imageA", "imageB"] + [
        f"{axis}{side}{i}" for side in "AB" for axis in "XY" for i in range(1, 11)
    ]
    rows = [",".join(header)]
    for category in ("car(G)", "duck(S)"):
        cells: list[str] = []
        for i in range(2):
            size = (int(generator.integers(40, 90)), int(generator.integers(40, 90)))
            write_blobs(place / category / f"{i:04d}.png", generator, size)
            points = _points(size, 10, generator)
            cells += [f"{p[axis]}.25" for axis in (0, 1) for p in points]
        rows.append(",".join([*(f"PF-dataset/{category}/{i:04d}.png" for i in range(2)), *cells]))
    (root / "test_pairs.csv").write_text("\n".join(rows) + "\n")
    return place


def hpatches(root: Path, *, seed: int = 0, keypoints: int = 0) -> Path:
    """HPatches with a sequence of each kind and a large one; B images are shifted A images."""
    generator = np.random.default_rng(seed)
    place = root / "hpatches-sequences-release"
    for sequence in ("i_ajuntament", "v_abstract", "v_talent"):
        for number in range(1, 7):
            write_blobs(place / sequence / f"{number}.ppm", generator, (60 + number, 80))
            if number > 1:
                matrix = np.array([[1, 0.01, number], [0, 1, -number], [1e-5, 0, 1]])
                np.savetxt(place / sequence / f"H_1_{number}", matrix)
            if keypoints:
                path = root / "superpoint-1k" / f"{sequence}-{number}.kp"
                path.parent.mkdir(exist_ok=True)
                np.savetxt(path, generator.random((keypoints, 2)) * [79, 60], fmt="%.3f")
    return place


def davis(root: Path, *, frames: int = 5, size: tuple[int, int] = (64, 96), seed: int = 0) -> Path:
    """DAVIS 2017 with two sequences of moving squares."""
    generator = np.random.default_rng(seed)
    place = root / "DAVIS"
    names = ("bear", "two-dogs")
    for objects, name in enumerate(names, 1):
        for frame in range(frames):
            write_blobs(place / "JPEGImages" / "480p" / name / f"{frame:05d}.jpg", generator, size)
            mask = np.zeros(size, np.uint8)
            for number in range(1, objects + 1):
                top, left = 5 + 3 * frame + 8 * number, 12 * number + 4 * frame
                mask[top : top + 20, left : left + 24] = number
            mask[0, :3] = 255
            image = Image.fromarray(mask).convert("P")
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
            path = place / "Annotations" / "480p" / name / f"{frame:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    path = place / "ImageSets" / "2017" / "val.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")
    return place


def folder(root: Path, *, seed: int = 0) -> Path:
    """Own pairs, listed in CSV."""
    generator = np.random.default_rng(seed)
    place = root / "own"
    rows = ["image_a,image_b,xa,ya,xb,yb,category"]
    for i in range(2):
        for side in "ab":
            write_blobs(place / f"{i}{side}.png", generator, (48, 64))
        a, b = (_points((48, 64), 5, generator) for _ in "ab")
        rows += [
            f"{i}a.png,{i}b.png,{p[0]},{p[1]},{q[0]},{q[1]},kind{i}"
            for p, q in zip(a, b, strict=True)
        ]
    (place / "pairs.csv").write_text("\n".join(rows) + "\n")
    return place


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key away."""
    values = json.loads(path.read_text())
    for key, value in changes.items():
        values.pop(key) if value is None else values.update({key: value})
    path.write_text(json.dumps(values))
