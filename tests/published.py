"""The arithmetic of published evaluations, written out plainly, to compare with.

Each follows what the authors' script computes, step by step and with everything materialised, from
the files of the data set and from features that stand in for the model's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import independent
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Features = Callable[[Path], Tensor]
"""Gives the features (1, C, rows, columns) of an image."""


def dift_spair(place: Path, features: Features, alpha: float) -> dict[str, float]:
    """eval_spair.py of DIFT, and of DiTF, which adds the means over categories."""
    categories = sorted(path.name for path in (place / "JPEGImages").iterdir())
    images: list[float] = []
    correct_all = total_all = 0
    point_means, image_means = [], []
    for category in categories:
        shares, correct_category, total_category = [], 0, 0
        for path in sorted((place / "PairAnnotation/test").iterdir()):
            if category not in path.name:
                continue
            data = json.loads(path.read_text())
            folder = place / "JPEGImages" / category
            a = features(folder / data["src_imname"])
            b = features(folder / data["trg_imname"])
            a = independent.upsample(a, tuple(data["src_imsize"][:2][::-1]))
            b = independent.upsample(b, tuple(data["trg_imsize"][:2][::-1]))
            width = b.shape[3]
            box = data["trg_bndbox"]
            threshold = max(box[3] - box[1], box[2] - box[0])
            correct = 0
            for source, target in zip(data["src_kps"], data["trg_kps"], strict=True):
                query = F.normalize(a[0, :, source[1], source[0]][None])
                pixels = F.normalize(b[0].flatten(1).T)
                y, x = divmod(int((pixels @ query.T).argmax()), width)
                distance = ((x - target[0]) ** 2 + (y - target[1]) ** 2) ** 0.5
                correct += distance / threshold <= alpha
            shares.append(correct / len(data["src_kps"]))
            correct_category += correct
            total_category += len(data["src_kps"])
        images += shares
        correct_all += correct_category
        total_all += total_category
        image_means.append(np.mean(shares))
        point_means.append(correct_category / total_category)
    return {
        "per_image": float(np.mean(images)),
        "per_point": correct_all / total_all,
        "per_image_of_categories": float(np.mean(image_means)),
        "per_point_of_categories": float(np.mean(point_means)),
    }


def preprocess_kps_pad(kps: Tensor, width: int, height: int, size: int) -> tuple[Tensor, float]:
    kps = kps.clone()
    scale = size / max(width, height)
    kps[:, [0, 1]] *= scale
    if height < width:
        kps[:, 1] += int((size - int(np.around(size * height / width))) / 2)
    elif width < height:
        kps[:, 0] += int((size - int(np.around(size * width / height))) / 2)
    kps *= kps[:, 2:3].clone()
    return kps, scale


def spair_keypoints(place: Path, path: Path, size: int) -> tuple[Any, ...]:
    data = json.loads(path.read_text())
    kps, files = [], []
    for side in ("src", "trg"):
        image = place / "JPEGImages" / data["category"] / data[f"{side}_imname"]
        annotation = place / "ImageAnnotation" / data["category"] / f"{image.stem}.json"
        known = json.loads(annotation.read_text())["kps"]
        rows = [
            [0.0, 0.0, 0.0] if known[str(i)] is None else [*known[str(i)], 1.0] for i in range(30)
        ]
        width, height = data[f"{side}_imsize"][:2]
        padded, scale = preprocess_kps_pad(torch.tensor(rows), width, height, size)
        kps.append(padded)
        files.append(image)
    box = data["trg_bndbox"]
    return files, kps, max(box[3] - box[1], box[2] - box[0]) * scale


def pascal_keypoints(place: Path, row: dict[str, str], size: int) -> tuple[Any, ...]:
    """A row of test_pairs_pf_pascal.csv, as load_pascal_data reads it."""
    kps, files = [], []
    for side, column in (("A", "source_image"), ("B", "target_image")):
        file = place.parent / row[column]
        x, y = ([float(v) for v in row[f"{axis}{side}"].split(";")] for axis in "XY")
        rows = torch.tensor([[*point, 1.0] for point in zip(x, y, strict=True)])
        with Image.open(file) as image:
            width, height = image.size
        kps.append(preprocess_kps_pad(rows, width, height, size)[0])
        files.append(file)
    return files, kps, None


def ap10k_keypoints(place: Path, path: Path, size: int) -> tuple[Any, ...]:
    data = json.loads(path.read_text())
    kps, files = [], []
    for side in ("src", "trg"):
        annotation = place / data[f"{side}_json_path"].split("ap-10k/")[1]
        values = json.loads(annotation.read_text())
        rows = torch.tensor(values["keypoints"]).view(-1, 3).float()
        rows[:, -1] /= 2
        padded, scale = preprocess_kps_pad(rows, values["width"], values["height"], size)
        kps.append(padded)
        files.append(
            Path(str(annotation).replace("json", "jpg").replace("ImageAnnotation", "JPEGImages"))
        )
    return files, kps, max(values["bbox"][3], values["bbox"][2]) * scale


def window_soft_argmax(corr: Tensor, n: int, window: int, beta: float = 0.02) -> Tensor:
    """GeoAware-SC's get_flow for rows of cosines (K, n * n): places (x, y) in tokens."""
    best = corr.argmax(1)
    mask = torch.zeros(len(corr), n, n)
    for row, index in enumerate(best.tolist()):
        top, left = (max(0, place - window) for place in divmod(index, n))
        bottom, right = (place + window + 1 for place in divmod(index, n))
        mask[row, top:bottom, left:right] = 1
    corr = (corr.view(-1, n, n) * mask).view(-1, n * n)
    weights = torch.exp((corr - corr.max(1, keepdim=True).values) / beta)
    weights = (weights / weights.sum(1, keepdim=True)).view(-1, n, n)
    axis = torch.from_numpy(np.linspace(-1, 1, n)).float()
    x = (weights.sum(1) * axis).sum(1)
    y = (weights.sum(2) * axis).sum(1)
    return (torch.stack([x, y], 1) + 1) * (n - 1) / 2


def token_pck(
    items: list[Any],
    read: Callable[[Any], tuple[Any, ...]],
    features: Features,
    decode: Callable[[Tensor, int], Tensor],
    size: int,
    offset: float,
) -> dict[str, list[float]]:
    """compute_pck of GeoAware-SC and sd-dino for one category, per point and per image.

    PCK@.1, .05, .01 of the box; where `read` gives no threshold, @.05, .1, .15 of the square.
    """
    alpha = torch.tensor([0.1, 0.05, 0.01])
    errors, thresholds, per_image = [], [], []
    for item in items:
        files, (kps_a, kps_b), threshold = read(item)
        a, b = (features(file)[0] for file in files)
        n = a.shape[1]
        a, b = (F.normalize(each.flatten(1).T, dim=1) for each in (a, b))
        x, y = ((n / size * kps_a[:, axis].numpy()).astype(np.int32) for axis in (0, 1))
        places = decode(a[n * y + x] @ b.T, n)
        stride = size / n
        found = places.clamp(0, n - 1) * stride + stride // 2 + offset
        seen = kps_a[:, 2] * kps_b[:, 2] > 0
        error = (kps_b[seen][:, [1, 0]] - found[seen][:, [1, 0]]).norm(dim=-1)
        if threshold is None:
            limits = (torch.tensor([0.05, 0.1, 0.15]) * size)[:, None].repeat(1, len(error))
        else:
            box = torch.tensor([threshold], dtype=torch.float64).repeat(len(error))
            limits = alpha[:, None] * box[None]
        per_image.append((error[None] < limits).float().mean(1))
        errors.append(error)
        thresholds.append(limits)
    correct = torch.cat(errors)[None] < torch.cat(thresholds, 1)
    return {
        "per_point": (correct.sum(1) / correct.shape[1]).tolist(),
        "per_image": torch.stack(per_image).mean(0).tolist(),
    }


def davis_propagation(
    frames: list[Tensor],
    first: npt.NDArray[Any],
    factor: int,
    topk: int,
    last: int,
    radius: int,
    temperature: float,
) -> list[npt.NDArray[np.uint8]]:
    """DINO's eval_video_segmentation: masks of every frame from features (C, h, w) of each."""
    c, h, w = frames[0].shape
    small = np.array(Image.fromarray(first).resize((w, h), Image.Resampling.NEAREST))
    classes = int(small.max()) + 1
    segmentation = torch.stack([torch.from_numpy(small == k).float() for k in range(classes)])[None]
    allowed = torch.zeros(h, w, h, w)
    for i in range(h):
        for j in range(w):
            allowed[
                i, j, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1
            ] = 1
    allowed = allowed.reshape(h * w, h * w)
    tokens = [each.reshape(c, -1).T for each in frames]
    queue: list[tuple[Tensor, Tensor]] = []
    masks = [first]
    for index in range(1, len(frames)):
        known = [tokens[0].T, *(pair[0] for pair in queue)]
        labels = [segmentation, *(pair[1] for pair in queue)]
        sources = F.normalize(torch.stack(known), dim=1)
        target = F.normalize(tokens[index], dim=1)[None].repeat(len(known), 1, 1)
        affinity = torch.exp(torch.bmm(target, sources) / temperature) * allowed
        affinity = affinity.transpose(2, 1).reshape(-1, h * w)
        least = torch.topk(affinity, topk, 0).values.min(0).values
        affinity[affinity < least] = 0
        affinity = affinity / affinity.sum(0, keepdim=True)
        stacked = torch.cat(labels)
        flat = stacked.reshape(len(known), classes, -1).transpose(2, 1).reshape(-1, classes).T
        found = (flat @ affinity).reshape(1, classes, h, w)
        queue = [*queue, (tokens[index].T, found)][-last:]
        up = F.interpolate(found, scale_factor=factor, mode="bilinear", align_corners=False)[0]
        for k in range(classes):
            if up[k].max() > 0:
                up[k] = up[k] - up[k].min()
                up[k] = up[k] / up[k].max()
        winner = up.argmax(0).numpy().astype(np.uint8)
        size = (first.shape[1], first.shape[0])
        masks.append(np.array(Image.fromarray(winner).resize(size, Image.Resampling.NEAREST)))
    return masks


def jaccard(true: npt.NDArray[Any], found: npt.NDArray[Any], void: npt.NDArray[Any]) -> float:
    """db_eval_iou of davis2017-evaluation, pixel by pixel."""
    both = either = 0
    for t, f, v in zip(true.flat, found.flat, void.flat, strict=True):
        if not v:
            both += bool(t) and bool(f)
            either += bool(t) or bool(f)
    return both / either if either else 1.0


def boundary_f(true: npt.NDArray[Any], found: npt.NDArray[Any], void: npt.NDArray[Any]) -> float:
    """f_measure of davis2017-evaluation, with every pixel of one boundary compared with all."""
    radius = np.ceil(0.008 * np.linalg.norm(true.shape))
    true, found = true.astype(bool) & ~void.astype(bool), found.astype(bool) & ~void.astype(bool)
    edges_true, edges_found = _seg2bmap(true), _seg2bmap(found)
    if not edges_true and not edges_found:
        precision = recall = 1.0
    elif not edges_found:
        precision, recall = 1.0, 0.0
    elif not edges_true:
        precision, recall = 0.0, 1.0
    else:
        precision = _share_near(edges_found, edges_true, radius)
        recall = _share_near(edges_true, edges_found, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _seg2bmap(mask: npt.NDArray[Any]) -> list[tuple[int, int]]:
    height, width = mask.shape
    edges = []
    for y in range(height):
        for x in range(width):
            last_row, last_column = y == height - 1, x == width - 1
            here = mask[y, x]
            east = False if last_column else mask[y, x + 1]
            south = False if last_row else mask[y + 1, x]
            diagonal = False if last_row or last_column else mask[y + 1, x + 1]
            if last_row and last_column:
                edge = False
            elif last_row:
                edge = here != east
            elif last_column:
                edge = here != south
            else:
                edge = here != east or here != south or here != diagonal
            if edge:
                edges.append((y, x))
    return edges


def _share_near(some: list[tuple[int, int]], others: list[tuple[int, int]], radius: float) -> float:
    a, b = np.array(some), np.array(others)
    squares = ((a[:, None] - b[None]) ** 2).sum(2)
    return float((squares.min(1) <= radius**2).mean())


def db_statistics(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, recall and decay of davis2017-evaluation."""
    ids = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.uint8)
    bins = [values[ids[i] : ids[i + 1] + 1] for i in range(4)]
    return (
        float(np.nanmean(values)),
        float(np.nanmean(values > 0.5)),
        float(np.nanmean(bins[0]) - np.nanmean(bins[3])),
    )
