"""Measure how well nano matches pairs that took no part in training.

    python examples/train_nano/evaluate.py --data DIR --weights FOLDER [FOLDER ...] [--pages docs]

Prints every table that docs/nano.md and docs/nano/measurements.md show, and with `--pages docs`
writes them there, each between `<!-- table NAME -->` and `<!-- end -->`. Pairs are read from
packages, which are downloaded once into DIR/packages. Further folders of weights are shown beside
the first, on the same pairs. `--only` measures some of the parts.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch
from calibrate import channel_table
from curves import curve_tables, unseen_photographs
from describers import BASELINE, Describe, load_nano, nano, remember, rgb_patch, rootsift
from evidence import difference_table
from hard import hard_pairs, hard_tables
from matchers import KEYPOINT_PX, KORNIA, Matcher, match_kornia, matchers
from measure import THRESHOLDS_PX, Outcome, cell, match_pair, mean_share, table
from network import BLOCKS, build, write
from pairs import QUERY_PX, further_pairs, trial_pairs
from posed import pose_tables, posed_pairs
from rich.console import Console
from rich.progress import Progress
from sweep import sweep
from views import token_centres

from kornia_ditf.utils import provenance

PAGES = ("nano.md", "nano/measurements.md")
TABLE = re.compile(r"<!-- table (?P<name>\S+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)
# The parts that are measured, and the tables of each, by their names on the pages.
PARTS = {
    "curves": (
        *("pck-turn", "pck-scale", "found-turn", "found-scale"),
        *("precision", "precision-turn", "precision-scale"),
    ),
    "pairs": (
        *("real", "seven-mean", "seven-16", "seven-8"),
        *("further-mean", "further-16", "further-8"),
    ),
    "poses": ("pose",),
    "hard": ("hard-solved", "hard"),
    "blocks": ("blocks", "channels"),
    "time": ("time", "where"),
}
REAL = ("graf", "aloe", "motorcycle", "box-in-scene", "board-01", "board-06")
NOT_SHOWN = ("RGB patch 16x16", "nano untrained", "nano, raw")

Track = Callable[[str, int], Callable[[], None]]


def seconds_per_image(describe: Describe, repeats: int = 5) -> float:
    """Measure the CPU time that a 480x384 image takes on its 8-pixel grid; return the median."""
    points = token_centres((384, 480), QUERY_PX)
    times = []
    for seed in range(repeats):
        image = np.random.default_rng(seed).integers(0, 256, (384, 480, 3), dtype=np.uint8)
        began = time.process_time()
        describe(image, points)
        times.append(time.process_time() - began)
    return float(np.median(times))


def mean_table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """Show the mean PCK and MMA of every descriptor."""
    kinds = [(name, r) for name in ("PCK", "MMA") for r in THRESHOLDS_PX]
    rows = {
        name: [cell(mean_share(found, r, kind == "MMA")) for kind, r in kinds]
        for name, found in outcomes.items()
    }
    return table(["descriptor", *(f"{kind}@{r}" for kind, r in kinds)], rows)


def pair_table(outcomes: Mapping[str, Sequence[Outcome]], names: Sequence[str], pixels: int) -> str:
    """Show the PCK of every pair, and of graf the corner error."""
    rows = {}
    for name, found in outcomes.items():
        rows[name] = [cell(mean_share([outcome], pixels)) for outcome in found]
        rows[name] += [cell(outcome.corners_px) for outcome in found if outcome.corners_px]
    width = max(len(cells) for cells in rows.values())
    head = [f"PCK@{pixels} of", *names]
    return table([*head, *["graf corners, px"] * (width - len(names))], rows)


def untrained(block: int, timestep: float) -> Describe:
    """Make the network without training, from seed 0."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write(build(), Path(folder))
        return nano(load_nano(Path(folder), block, timestep))


def real_table(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Show the PCK@8 of each descriptor on some of the real pairs."""
    rows = {
        name: [f"{100 * found[pair].share(8, False):.1f}" for pair in REAL]
        for name, found in outcomes.items()
        if name not in NOT_SHOWN
    }
    return table(["PCK@8, %", *REAL], rows)


def pair_tables(data: Path, compared: Mapping[str, Describe], track: Track) -> dict[str, str]:
    """Match the seven pairs and the further ones by dense descriptors."""
    tables, every = {}, {name: {} for name in compared}
    for key, pairs in (("seven", trial_pairs(data)), ("further", further_pairs(data))):
        advance, outcomes = track(f"{key} pairs", len(compared)), {}
        names = [pair.name for pair in pairs]
        for name, describe in compared.items():
            outcomes[name] = [match_pair(pair, describe) for pair in pairs]
            every[name] |= dict(zip(names, outcomes[name], strict=True))
            advance()
        tables[f"{key}-mean"] = mean_table(outcomes)
        tables |= {f"{key}-{r}": pair_table(outcomes, names, r) for r in (16, 8)}
    return tables | {"real": real_table(every)}


def block_tables(data: Path, weights: Path, timestep: float, track: Track) -> dict[str, str]:
    """Measure raw, AdaLN and discarding at every block, and every block's largest channels."""
    advance, blocks = track("blocks", 1), range(BLOCKS)
    found = sweep(
        weights, [replace(p, homography=None) for p in trial_pairs(data)], blocks, [timestep]
    )
    advance()
    return {
        "blocks": difference_table(found, blocks, timestep),
        "channels": channel_table(found, blocks, timestep),
    }


def time_tables(compared: Mapping[str, Describe]) -> dict[str, str]:
    """Measure what a description costs, and say where everything was measured."""
    rows = {name: [f"{seconds_per_image(describe):.2f}"] for name, describe in compared.items()}
    libraries = provenance.versions(("torch", "kornia", "opencv-python"))
    where = [
        datetime.now(UTC).strftime("%Y-%m-%d"),
        f"{provenance.processor()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} thread",
        f"commit `{(provenance.commit() or 'unknown')[:7]}`",
        *(f"{name} {version}" for name, version in libraries.items()),
    ]
    return {
        "time": table(["an image of 480 x 384", "CPU time, s"], rows),
        "where": f"Measured on {', '.join(where)}.\n",
    }


def measure(
    data: Path,
    weights: Sequence[Path],
    block: int,
    timestep: float,
    track: Track,
) -> dict[str, Callable[[], dict[str, str]]]:
    """Prepare what is compared; return how each part is measured.

    Args:
        data: the folder of the photographs and packages.
        weights: folders of weights; the first is called nano.
        block: that is described.
        timestep: at which it is.
        track: makes, from a name and a number of steps, what is called after each step.
    """
    names = ["nano", *(str(folder) for folder in weights[1:])]
    loaded = {
        name: load_nano(folder, block, timestep)
        for name, folder in zip(names, weights, strict=True)
    }
    remembered = {name: remember(ditf) for name, ditf in loaded.items()}
    dense: dict[str, Describe] = {BASELINE: rootsift}
    dense |= {name: nano(describe) for name, describe in remembered.items()}
    described: dict[str, Describe] = {
        "RGB patch 16x16": rgb_patch,
        "nano untrained": untrained(block, timestep),
        **dense,
        "nano, raw": nano(load_nano(weights[0], block, timestep, "raw")),
        "nano, not reduced": nano(load_nano(weights[0], block, timestep, long_side=None)),
    }
    searching = loaded["nano"]
    compared = matchers(remembered, searching)
    # Costs are measured as well, so nothing is remembered from pair to pair.
    costed = matchers(loaded, searching) | {KORNIA: Matcher(match_kornia(), KEYPOINT_PX)}
    return {
        "pairs": lambda: pair_tables(data, described, track),
        "curves": lambda: curve_tables(unseen_photographs(), dense, compared, track),
        "poses": lambda: pose_tables(posed_pairs(data), compared, track),
        "hard": lambda: hard_tables(hard_pairs(data), costed, track),
        "blocks": lambda: block_tables(data, weights[0], timestep, track),
        "time": lambda: time_tables({**described, "nano": nano(searching)}),
    }


def fill(page: Path, tables: Mapping[str, str]) -> None:
    """Put tables where a page names them."""

    def shown(found: re.Match[str]) -> str:
        name = found["name"]
        body = tables.get(name, found["body"])
        return f"<!-- table {name} -->\n{body}<!-- end -->"

    page.write_text(TABLE.sub(shown, page.read_text("utf-8")), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--weights", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, help="folder for evaluation.md, with every table")
    parser.add_argument("--pages", type=Path, help="the docs folder whose pages are filled")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--timestep", type=float, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    torch.set_grad_enabled(False)
    shown = ""
    with Progress(console=Console(stderr=True), redirect_stdout=False) as progress:

        def track(name: str, total: int) -> Callable[[], None]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        parts = measure(options.data, options.weights, options.block, options.timestep, track)
        for part in options.only:
            began = time.process_time()
            tables = parts[part]()
            progress.print(f"{part}: {time.process_time() - began:.0f} s of CPU time")
            named = [(name, tables[name]) for name in PARTS[part]]
            text = "".join(f"<!-- table {name} -->\n{t}<!-- end -->\n\n" for name, t in named)
            print(text, flush=True)
            shown += text
            for page in PAGES if options.pages else ():
                fill(options.pages / page, tables)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(shown, "utf-8")


if __name__ == "__main__":
    main()
