"""A small study for the tests: blobs shifted by whole pixels, described by a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study

MakeStudy = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What is compared byte for byte is computed with one number of threads everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_pairs(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Write images of blobs in a ring, each paired with the next; and their list."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for place in range(count):
        noise = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        noise.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{place}.png")
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


@pytest.fixture
def make_study(tmp_path: Path, tiny_checkpoint: Callable[[str], Path]) -> MakeStudy:
    """Write a study file; keys replace those of the small study."""

    def make(*, pairs: int = 4, name: str = "small.yaml", **changes: Any) -> Path:
        descriptor = {
            "name": "nano",
            "source": str(tiny_checkpoint("nano")),
            "block": [1, 2],
            "treatment": ["raw", "adaln+discard"],
            "long_side": 32,
        }
        document: dict[str, Any] = {
            "name": "small",
            "descriptors": [descriptor],
            "datasets": [
                {"name": "folder", "root": str(write_pairs(tmp_path / f"pairs-{pairs}", pairs))}
            ],
            "protocols": ["plain"],
            "report": {"resamples": 200, "permutations": 200, "pictures": 1},
        }
        document.update(changes)
        path = tmp_path / name
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return make


@pytest.fixture
def small_study(make_study: MakeStudy) -> Study:
    return read_study(make_study())


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.done = 0
        self.warnings: list[str] = []

    def begin(self, stage: str, total: int) -> None:
        self.stages.append((stage, total))

    def advance(self, count: int) -> None:
        self.done += count

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def total(self, stage: str) -> int:
        return sum(total for name, total in self.stages if name == stage)


@pytest.fixture
def heard() -> Heard:
    return Heard()
