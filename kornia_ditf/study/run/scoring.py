"""Scoring pairs and videos by their descriptor maps, or by what a matcher finds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.datasets.sequences import FrameSequence, SequenceDataset
from kornia_ditf.errors import DamagedFileError, DiTFError
from kornia_ditf.protocols.evaluate import (
    evaluate_matches,
    evaluate_pair,
    find_points,
    score_points,
)
from kornia_ditf.protocols.sequences import evaluate_sequence
from kornia_ditf.study.define.jobs import Compare, Evaluate, Outcome
from kornia_ditf.study.run.apart import MatcherProcess
from kornia_ditf.study.store.cache import MapReader
from kornia_ditf.study.store.records import image_name, pair_row, sequence_row, write_part


def score_job(
    job: Evaluate, dataset: PairDataset | SequenceDataset, maps: MapReader, place: torch.device
) -> Outcome:
    """Score the pairs of a job, and write their records.

    Keypoints are found pair by pair without waiting for the device, and read from it together:
    each pair by itself, so that its record does not depend on its neighbours.

    Args:
        job: which pairs.
        dataset: that they are of.
        maps: reads their descriptor maps.
        place: the device to score on.
    """
    outcome, rows = Outcome(), []
    begin, root = time.perf_counter(), dataset.root
    waiting: list[tuple[int, str, Pair, Tensor]] = []

    def attempt(index: int, step: Any, *given: Any) -> None:
        try:
            step(index, *given)
        except DamagedFileError as error:
            error.remove()
            outcome.damaged.append(str(error))
        except DiTFError as error:
            outcome.failures.append(f"pair {index}: {error}")

    def find(index: int, key: str, keys: tuple[str, ...]) -> None:
        item, protocol = dataset[index], job.protocol
        if isinstance(item, FrameSequence):
            of_frame = dict(zip(item.frames, keys, strict=True))
            result = evaluate_sequence(lambda path: maps.map(of_frame[path], place), item, protocol)
            rows.append({"key": key, **sequence_row(item, result, root)})
        elif protocol.task == "keypoints" and not protocol.pca and protocol.align == "none":
            side_a, side_b = (
                maps.target(each, place, size, pixels=not protocol.canvas)
                for each, size in zip(keys, (item.size_a, item.size_b), strict=True)
            )
            waiting.append((index, key, item, find_points(side_a, side_b, item, protocol)))
        else:
            *maps_a, map_b = (maps.map(each, place) for each in keys)
            map_a = maps_a[0] if protocol.align == "none" else maps_a
            found = evaluate_pair(map_a, map_b, item, protocol)
            rows.append({"key": key, **pair_row(item, found, root)})

    def score(index: int, key: str, pair: Pair, places: Tensor) -> None:
        result = score_points(places, pair, job.protocol)
        rows.append({"key": key, **pair_row(pair, result, root)})

    for index, key, keys in job.pairs:
        attempt(index, find, key, keys)
    if waiting:
        places = [found for *_, found in waiting]
        together = torch.split(torch.cat(places).cpu(), [len(found) for found in places])
        for (index, key, pair, _), found in zip(waiting, together, strict=True):
            attempt(index, score, key, pair, found)
    if rows:
        write_part(Path(job.folder), rows)
    outcome.count = len(rows)
    outcome.seconds = [(time.perf_counter() - begin) / max(1, len(rows))] * len(rows)
    return outcome


def match_job(
    job: Compare, dataset: PairDataset | SequenceDataset, matcher: MatcherProcess
) -> Outcome:
    """Match the pairs of a job, score them, and write their records."""
    outcome, rows = Outcome(), []
    if job.protocol.task == "masks":
        return Outcome(failures=["a matcher gives no masks"])
    for index, key, _ in job.pairs:
        try:
            pair: Any = dataset[index]
            names = [image_name(path, dataset.root) for path in (pair.image_a, pair.image_b)]
            found = matcher.match(pair, names, job.protocol.fit)
            result = evaluate_matches(found.matches, pair, job.protocol)
            rows.append({"key": key, **pair_row(pair, result, dataset.root)})
        except DiTFError as error:
            outcome.failures.append(str(error))
            if matcher.broken:
                break
            continue
        outcome.image_seconds += found.image_seconds
        outcome.seconds.append(found.pair_seconds)
        for name, value in found.costs.items():
            join = sum if name == "joules" else max
            outcome.costs[name] = join((value, outcome.costs.get(name, 0.0)))
    if rows:
        write_part(Path(job.folder), rows)
    outcome.count = len(rows)
    return outcome
