"""Weights in, a table of how well the descriptor matches seven real and warped pairs out.

    python examples/train_nano/evaluate.py --data DIR --weights FOLDER --out FOLDER

Queries are the centres of an 8-pixel grid of the first image; the best match by cosine is sought
among the centres of a grid of the second image. None of these images trains the network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from network import CELL, Network, build, noisy, null_caption, read
from photographs import fetch, read_rgb
from torch import Tensor
from views import Array, Image, as_tensor, project, read_at, token_centres

QUERY_PX = 8
THRESHOLDS_PX = (4, 8, 16)
Describe = Callable[[Image, Array], Tensor]


@dataclass(frozen=True, eq=False)
class TestPair:
    """Two images and where each query of the first lies in the second.

    Attributes:
        name: what the pair shows.
        image_a: RGB, shape (H, W, 3).
        image_b: RGB, same shape.
        truth: (x, y) in pixels of the second image, NaN where unknown, shape (N, 2).
        homography: from the first image to the second, where there is one.
    """

    name: str
    image_a: Image
    image_b: Image
    truth: Array
    homography: Array | None = None


@dataclass(frozen=True)
class Score:
    """Fractions in [0, 1] by threshold in pixels, and the mean corner error in pixels."""

    pck: dict[int, float]
    mma: dict[int, float]
    corner_error_px: float | None


def shrink(image: Image, width: int, height: int) -> Image:
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def read_homography(path: Path) -> Array:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    return np.asarray(storage.getFirstTopLevelNode().mat(), dtype=np.float64)


def by_disparity(queries: Array, disparity: Array, width: int, height: int) -> Array:
    """Move the queries of a resized left image by the full-size disparity; 0 is unknown."""
    full_height, full_width = disparity.shape
    scale = np.array([width / full_width, height / full_height])
    x, y = np.clip((queries / scale).round(), 0, [full_width - 1, full_height - 1]).astype(int).T
    known = disparity[y, x]
    truth = queries.copy()
    truth[:, 0] -= known * scale[0]
    truth[~np.isfinite(known) | (known <= 0)] = np.nan
    return truth


def warped_pair(name: str, image: Image, rng: np.random.Generator) -> TestPair:
    """Turn, zoom, tilt and relight a photograph."""
    width, height = 384, 320
    image = shrink(image, width, height)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(15, 30))
    zoom = rng.uniform(0.75, 1.25)
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = zoom * np.array([[cos, -sin], [sin, cos]])
    middle = np.array([width / 2, height / 2])
    moved = (corners - middle) @ rotation.T + middle + rng.uniform(-25, 25, (4, 2))
    homography = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    other = cv2.warpPerspective(
        image, homography, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    relit = 255 * (other / 255.0) ** 1.4 * np.array([1.0, 0.92, 0.85])
    relit = np.clip(relit + rng.normal(0, 6, other.shape), 0, 255).astype(np.uint8)
    truth = project(homography, token_centres((height, width), QUERY_PX))
    return TestPair(f"warped-{name}", image, relit, truth)


def load_pairs(data: Path) -> list[TestPair]:
    """Read graf, aloe, motorcycle and four warped photographs, from packages alone."""
    import skimage
    import sklearn  # type: ignore[import-untyped]

    opencv = fetch("opencv-doc", data / "packages") / "usr/share/doc/opencv-doc/examples/data"
    skimage_data = Path(skimage.__file__).parent / "data"
    sklearn_data = Path(sklearn.__file__).parent / "datasets" / "images"

    size = (480, 384)
    to_size = np.diag([480 / 800, 384 / 640, 1.0])
    homography = to_size @ read_homography(opencv / "H1to3p.xml") @ np.linalg.inv(to_size)
    graf_a, graf_b = (shrink(read_rgb(opencv / f"graf{i}.png"), *size) for i in (1, 3))
    truth = project(homography, token_centres((384, 480), QUERY_PX))
    pairs = [TestPair("graf", graf_a, graf_b, truth, homography)]

    disparity = read_rgb(opencv / "aloeGT.png")[..., 0].astype(np.float64)
    aloe_a, aloe_b = (shrink(read_rgb(opencv / f"aloe{i}.jpg"), 480, 416) for i in "LR")
    truth = by_disparity(token_centres((416, 480), QUERY_PX), disparity, 480, 416)
    pairs.append(TestPair("aloe", aloe_a, aloe_b, truth))

    with np.load(skimage_data / "motorcycle_disp.npz") as file:
        disparity = file[file.files[0]].astype(np.float64)
    motorcycle_a, motorcycle_b = (
        shrink(read_rgb(skimage_data / f"motorcycle_{side}.png"), 480, 320)
        for side in ("left", "right")
    )
    truth = by_disparity(token_centres((320, 480), QUERY_PX), disparity, 480, 320)
    pairs.append(TestPair("motorcycle", motorcycle_a, motorcycle_b, truth))

    rng = np.random.default_rng(3)
    paths = (
        skimage_data / "astronaut.png",
        skimage_data / "coffee.png",
        skimage_data / "chelsea.png",
        sklearn_data / "china.jpg",
    )
    return pairs + [warped_pair(path.stem, read_rgb(path), rng) for path in paths]


class _Captured(Exception):
    """Ends the forward once the block's input is known."""


def capture(
    network: Network, latent: Tensor, timestep: float, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a block's input and its own shift and scale, through forward hooks.

    Returns:
        x of shape (N, D); shift and scale of shape (D,).
    """
    here = network.transformer_blocks[block]
    seen: dict[str, Tensor] = {}

    def on_modulation(_: Any, __: Any, output: tuple[Tensor, Tensor]) -> None:
        table = here.scale_shift_table + output[0].reshape(1, 6, -1)[0]
        seen["shift"], seen["scale"] = table[0], table[1]

    def before_norm(_: Any, inputs: tuple[Tensor]) -> None:
        seen["x"] = inputs[0][0]

    def before_attention(_: Any, inputs: tuple[Tensor]) -> None:
        normed = F.layer_norm(seen["x"], seen["x"].shape[-1:], eps=here.norm1.eps)
        expected = (1 + seen["scale"]) * normed + seen["shift"]
        torch.testing.assert_close(inputs[0][0], expected, rtol=1e-3, atol=1e-3)
        raise _Captured

    hooks = [
        network.time_embed.register_forward_hook(on_modulation),
        here.norm1.register_forward_pre_hook(before_norm),
        here.attn1.register_forward_pre_hook(before_attention),
    ]
    try:
        network(
            latent,
            encoder_hidden_states=null_caption(1, latent.device),
            timestep=torch.full((1,), float(timestep), device=latent.device),
        )
    except _Captured:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen["x"], seen["shift"], seen["scale"]


def nano_describer(
    network: Network,
    block: int,
    timestep: float,
    discard: Sequence[int] = (),
    raw: bool = False,
    seed: int = 0,
) -> Describe:
    """Describe points by the block's input: discard, LayerNorm, the block's scale and shift."""

    def describe(image: Image, points: Array) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        latent = as_tensor([image])
        noise = torch.randn(latent.shape, generator=generator)
        latent = noisy(latent, noise, torch.tensor([timestep / 1000]))
        x, shift, scale = capture(network, latent, timestep, block)
        x = x.clone()
        x[:, list(discard)] = 0
        if not raw:
            x = (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=1e-6) + shift
        height, width = image.shape[:2]
        grid = x.T.reshape(-1, height // CELL, width // CELL)
        return F.normalize(read_at(grid, torch.from_numpy(points).float(), (height, width)), dim=1)

    return describe


def rootsift(image: Image, points: Array) -> Tensor:
    """Describe points by SIFT of size 8, upright, with square roots."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints = [cv2.KeyPoint(float(x), float(y), 8.0, 0.0) for x, y in points]
    _, descriptors = cv2.SIFT.create().compute(gray, keypoints)
    return F.normalize(torch.from_numpy(descriptors).sqrt(), dim=1)


def rgb_patch(image: Image, points: Array) -> Tensor:
    """Describe points by the 16x16 pixels around them, less their mean."""
    x, y = np.floor(points).astype(int).T + 8
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="edge")
    offsets = np.arange(-7, 9)
    patches = padded[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets]
    flat = torch.from_numpy(patches.reshape(len(points), -1, 3)).float()
    return F.normalize((flat - flat.mean(1, keepdim=True)).flatten(1), dim=1)


def corner_error(matched_a: Array, matched_b: Array, pair: TestPair) -> float | None:
    """Estimate the homography from matches; return the mean distance of the four corners."""
    if pair.homography is None or len(matched_a) < 4:
        return None
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(
        matched_a.astype(np.float32),
        matched_b.astype(np.float32),
        cv2.USAC_MAGSAC,
        8.0,
        maxIters=10000,
        confidence=0.999,
    )
    if found is None:
        return None
    height, width = pair.image_a.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    apart = project(found, corners) - project(pair.homography, corners)
    return float(np.linalg.norm(apart, axis=1).mean())


def score_pair(pair: TestPair, describe: Describe, target_px: int = QUERY_PX) -> Score:
    """Match one pair and measure it where the truth is known and inside the image."""
    height, width = pair.image_a.shape[:2]
    queries = token_centres((height, width), QUERY_PX)
    targets = token_centres((height, width), target_px)
    described_a = describe(pair.image_a, queries)
    described_b = describe(pair.image_b, targets)
    similarity = described_a @ described_b.T
    best = similarity.argmax(1).numpy()
    back = similarity.argmax(0).numpy()
    mutual = back[best] == np.arange(len(best))
    distance = np.linalg.norm(targets[best] - pair.truth, axis=1)
    with np.errstate(invalid="ignore"):
        known = (pair.truth >= 0).all(1) & (pair.truth < [width, height]).all(1)
    return Score(
        pck={r: float((distance[known] <= r).mean()) for r in THRESHOLDS_PX},
        mma={r: float((distance[known & mutual] <= r).mean()) for r in THRESHOLDS_PX},
        corner_error_px=corner_error(queries[mutual], targets[best[mutual]], pair),
    )


def score_all(pairs: list[TestPair], describe: Describe, target_px: int) -> dict[str, Any]:
    """Score every pair; return the means in per cent and PCK@16 of each pair."""
    scores = {pair.name: score_pair(pair, describe, target_px) for pair in pairs}
    row: dict[str, Any] = {}
    for r in THRESHOLDS_PX:
        row[f"PCK@{r}"] = 100 * float(np.mean([score.pck[r] for score in scores.values()]))
        row[f"MMA@{r}"] = 100 * float(np.mean([score.mma[r] for score in scores.values()]))
    for name, score in scores.items():
        row[name] = 100 * score.pck[16]
    row["graf corner px"] = scores["graf"].corner_error_px if "graf" in scores else None
    return row


def seconds_per_image(describe: Describe, repeats: int = 5) -> float:
    """Time the description of a 480x384 image on its 8-pixel grid; return the median."""
    image = np.random.default_rng(0).integers(0, 256, (384, 480, 3), dtype=np.uint8)
    points = token_centres((384, 480), QUERY_PX)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        describe(image, points)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def as_markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Format the rows as a table."""
    columns = list(next(iter(rows.values())))
    lines = ["| descriptor | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = ["-" if row[c] is None else f"{row[c]:.{2 if c == 's' else 1}f}" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--timestep", type=float, default=0)
    parser.add_argument("--discard", type=int, nargs="*", default=[])
    parser.add_argument("--target-px", type=int, default=QUERY_PX, help="grid of the second image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-nano", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    trained = read(options.weights)
    at = (options.block, options.timestep)
    name = f"nano block {at[0]} t {at[1]:g}"
    describers: dict[str, Describe] = {f"{name} AdaLN": nano_describer(trained, *at)}
    if not options.only_nano:
        describers = {
            "RGB patch 16x16": rgb_patch,
            "dense RootSIFT (8)": rootsift,
            "nano untrained": nano_describer(build().eval(), *at),
            f"{name} raw": nano_describer(trained, *at, raw=True),
        } | describers
    if options.discard:
        key = f"{name} AdaLN + discard {options.discard}"
        describers[key] = nano_describer(trained, *at, discard=options.discard)
    pairs = load_pairs(options.data)
    rows = {}
    for key, describe in describers.items():
        rows[key] = score_all(pairs, describe, options.target_px)
        rows[key]["s"] = seconds_per_image(describe)
    table = as_markdown(rows)
    print(table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.md").write_text(table)
        (options.out / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
