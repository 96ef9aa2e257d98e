"""Measure how extraction on Ray scales with workers, beside the same work in this process.

    python examples/ray_slope.py --workers 1 2 4 --images 48

Rounds take turns, so that a machine with other work to do slows all alike. `images/s` is counted
from the first shard that is done to the last, so starting Ray and loading the model are apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kornia_ditf.cli.describing import Request
from kornia_ditf.cli.extract_ray import run_pieces
from kornia_ditf.cli.options import Chosen
from kornia_ditf.cli.shards import ShardWriter
from kornia_ditf.utils.sources import Piece, list_pieces

DATA = Path(__file__).parent / "data"


class Run(NamedTuple):
    """One run: images per second once it flows, worker CPU seconds per image, and its start."""

    rate: float
    cpu: float
    start: float


def write_images(folder: Path, count: int) -> None:
    """Write pieces of the photographs of examples/data."""
    generator = np.random.default_rng(0)
    photographs = [cv2.imread(str(path)) for path in sorted(DATA.glob("*.jpg"))]
    for number in range(count):
        whole = photographs[number % len(photographs)]
        top, left = (int(generator.integers(0, side - 239)) for side in whole.shape[:2])
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), whole[top : top + 240, left : left + 240])


def measure(pieces: list[Piece], request: Request, workers: int) -> Run:
    """Describe all pieces on Ray, or with 0 workers in this process."""
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        if workers:
            cpus = min(1.0, (os.cpu_count() or 1) / workers)
            shards = run_pieces(pieces, request, Path(out), workers=workers, cpus=cpus, gpus=0)
        else:
            writer = ShardWriter(request, Path(out), pieces[:4])
            shards = map(writer.write, pieces)
        done, times = [], []
        for shard in shards:
            times.append(time.perf_counter())
            done.append(shard)
    flowing = sum(shard.images for shard in done[1:]) / (times[-1] - times[0])
    images = sum(shard.images for shard in done)
    return Run(flowing, sum(s.cpu_seconds for s in done) / images, times[0] - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-side", type=int, default=240)
    given = parser.parse_args()
    request = Request(Chosen({"backbone": "nano", "long_side": given.long_side}), [], "float16")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), given.images)
        pieces, _ = list_pieces([Path(folder)], 4)
        kinds = [0, *given.workers]
        runs = {kind: [] for kind in kinds}
        for _ in range(given.rounds):
            for kind in kinds:
                runs[kind].append(measure(pieces, request, kind))
    print(f"{given.images} images, {len(pieces)} shards, {os.cpu_count()} cores")
    print("workers  images/s  slope  CPU s/image  first shard after s")
    base = statistics.median(run.rate for run in runs[given.workers[0]])
    for kind in kinds:
        rate, cpu, start = (statistics.median(each) for each in zip(*runs[kind], strict=True))
        name = kind or "none"
        print(f"{name:>7}  {rate:8.2f}  {rate / base:5.2f}  {cpu:11.3f}  {start:19.1f}")


if __name__ == "__main__":
    main()
