"""The small study of the tests: blobs shifted by whole pixels, described by a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from blobs import write_blobs


def write_pairs(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Write images of blobs in a ring, each paired with the next; and their list."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for place in range(count):
        write_blobs(folder / f"{place}.png", generator)
    pairs = []
    for place in range(count):
        points = generator.integers(4, 44, (5, 2)).tolist()
        pairs.append(
            {
                "name": f"pair-{place}",
                "category": "even" if place % 2 == 0 else "odd",
                "image_a": f"{place}.png",
                "image_b": f"{(place + 1) % count}.png",
                "points_a": points,
                "points_b": points,
            }
        )
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


def study_file(
    folder: Path, model: Path, *, pairs: int = 4, name: str = "small.yaml", **changes: Any
) -> Path:
    """Write a study file; `changes` replace keys of the small study."""
    descriptor = {
        "name": "nano",
        "source": str(model),
        "block": [1, 2],
        "treatment": ["raw", "adaln+discard"],
        "long_side": 32,
    }
    document: dict[str, Any] = {
        "name": "small",
        "descriptors": [descriptor],
        "datasets": [
            {"name": "folder", "root": str(write_pairs(folder / f"pairs-{pairs}", pairs))}
        ],
        "protocols": ["plain"],
        "report": {"resamples": 200, "permutations": 200, "pictures": 1},
    }
    document.update(changes)
    path = folder / name
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
