"""Scores of settings on samples, recorded as they are measured, so that no forward is run twice."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kornia_ditf.calibration.grid import Cell, Forward
from kornia_ditf.calibration.samples import Sample
from kornia_ditf.config import DiTFConfig
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import CaptureError, InvalidArgumentError, OutputError
from kornia_ditf.massive import ChannelRecorder
from kornia_ditf.treatments import parse_treatment
from kornia_ditf.types import Frame, Tap
from kornia_ditf.utils.files import make_folder, os_errors_as


class Score(NamedTuple):
    """Points of a sample that were found, and their number."""

    found: float
    points: float


class Records:
    """Scores by sample and setting, in a file of lines that each carry a checksum.

    A line that was torn when the process was killed, or changed since, is skipped and its scores
    are measured again.

    Args:
        path: of the file; None keeps the scores in memory alone.

    Raises:
        OutputError: the file's folder cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._values: defaultdict[tuple[str, Forward], dict[str, Any]] = defaultdict(
            lambda: {"scores": {}, "channels": {}}
        )
        if path is None:
            return
        make_folder(path.parent, "name another folder with KORNIA_DITF_CACHE")
        with os_errors_as(OutputError, f"cannot read {path}", "remove it"):
            lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        for line in lines:
            digest, _, text = line.partition(" ")
            if digest == _checksum(text):
                value = json.loads(text)
                self._keep(value.pop("sample"), Forward(*value.pop("forward")), value)

    def get(self, sample: Sample, forward: Forward) -> dict[str, Any]:
        """Return what is known of a sample and forward: `scores`, `channels`, maybe `failed`."""
        return self._values[sample.digest, forward]

    def add(self, sample: Sample, forward: Forward, value: dict[str, Any]) -> None:
        """Store a measurement; it is on disk before this returns.

        Raises:
            OutputError: the file cannot be written.
        """
        self._keep(sample.digest, forward, value)
        if self.path is None:
            return
        text = json.dumps({"sample": sample.digest, "forward": forward, **value})
        with (
            os_errors_as(OutputError, f"cannot write {self.path}"),
            self.path.open("a", encoding="utf-8") as file,
        ):
            file.write(f"\n{_checksum(text)} {text}")

    def _keep(self, sample: str, forward: Forward, value: dict[str, Any]) -> None:
        known = self._values[sample, forward]
        known["scores"] |= value["scores"]
        known["channels"] |= value["channels"]
        if "failed" in value:
            known["failed"] = value["failed"]


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Measurer:
    """Measures settings on samples with one model.

    Args:
        ditf: whose backbone is run, and whose prompt and seed are kept.
        records: where scores are kept.

    Raises:
        InvalidArgumentError: it joins blocks, averages timesteps or takes another facet than the
            block's input, none of which a preset holds.
    """

    def __init__(self, ditf: DiTF, records: Records) -> None:
        for name, usual in (("facet", "input"), ("blocks", None), ("timesteps", None)):
            given = getattr(ditf.config, name)
            if given != usual:
                raise InvalidArgumentError(
                    f"calibration chooses one block's input at one timestep, got {name}={given!r}; "
                    "leave it out"
                )
        self.ditf, self.records = ditf, records
        self.reached: dict[tuple[str, Forward], int] = {}
        """The last block that was needed, by sample and forward."""
        self.failures: dict[Forward, str] = {}
        """Why forwards could not be run."""

    def scores(
        self,
        sample: Sample,
        cells: Sequence[Cell],
        channels: Mapping[int, tuple[int, ...]] | None = None,
    ) -> dict[Cell, Score]:
        """Measure settings of one forward on a sample; what is recorded is not run.

        A setting that the model refuses, or whose features are not finite, finds no point.

        Args:
            sample: the images.
            cells: settings that one forward serves.
            channels: by block, the massive channels to discard; None finds them in the sample.
        """
        forward = cells[0].forward
        names = {cell: _name(cell, channels) for cell in cells}
        deepest = max(cell.block for cell in cells)
        self.reached[sample.digest, forward] = max(
            deepest, self.reached.get((sample.digest, forward), 0)
        )
        known = self.records.get(sample, forward)
        missing = [cell for cell in cells if names[cell] not in known["scores"]]
        if missing and "failed" not in known:
            measured = self._measure(sample, forward, missing, channels)
            self.records.add(sample, forward, measured)
            known = self.records.get(sample, forward)
        if "failed" in known:
            self.failures[forward] = known["failed"]
            return dict.fromkeys(cells, Score(0.0, 1.0))
        return {cell: Score(*known["scores"][name]) for cell, name in names.items()}

    def channels(self, samples: Sequence[Sample], forward: Forward, block: int) -> tuple[int, ...]:
        """Return the channels that are massive at a block in at least half of the samples."""
        found = [
            self.records.get(sample, forward)["channels"].get(str(block), []) for sample in samples
        ]
        every = sorted({channel for channels in found for channel in channels})
        return tuple(c for c in every if 2 * sum(c in each for each in found) >= len(found))

    @torch.no_grad()
    def _measure(
        self,
        sample: Sample,
        forward: Forward,
        cells: Sequence[Cell],
        given: Mapping[int, tuple[int, ...]] | None,
    ) -> dict[str, Any]:
        config = replace(
            self.ditf.config,
            timestep=forward.timestep,
            long_side=forward.long_side,
            ensemble=forward.draws,
            massive_channels=None,
        )
        blocks = sorted({cell.block for cell in cells})
        ditf = DiTF(self.ditf.backbone, config)
        images = sample.load()
        prompts = sample.prompts or [None] * len(images)
        try:
            tapped = [ditf.taps(i, blocks, p) for i, p in zip(images, prompts, strict=True)]
        except (InvalidArgumentError, CaptureError) as error:  # too large for the model, or NaN
            return {"scores": {}, "channels": {}, "failed": str(error)}
        scores: dict[str, Score] = {}
        channels: dict[str, tuple[int, ...]] = {}
        for block in blocks:
            taps = [(taps[block], frame) for taps, frame in tapped]
            if given is None:
                channels[str(block)] = _massive_channels([tap for tap, _ in taps])
            discarded = channels[str(block)] if given is None else given.get(block, ())
            same: dict[tuple[str, ...], Score] = {}
            for cell in (cell for cell in cells if cell.block == block):
                key = _distinct_steps(cell.treatment, discarded)
                if key not in same:
                    finishing = replace(
                        config,
                        block=block,
                        treatment=cell.treatment,
                        massive_channels=discarded,
                    )
                    same[key] = self._score(sample, finishing, taps)
                scores[_name(cell, given)] = same[key]
        return {"scores": scores, "channels": channels}

    def _score(
        self, sample: Sample, config: DiTFConfig, taps: Sequence[tuple[Tap, Frame]]
    ) -> Score:
        ditf = DiTF(self.ditf.backbone, config)
        try:
            return Score(*sample.score([ditf.finish(config.block, t, f) for t, f in taps]))
        except InvalidArgumentError:  # not finite, or more directions than tokens
            return Score(0.0, 1.0)


def _distinct_steps(treatment: str, discarded: tuple[int, ...]) -> tuple[str, ...]:
    """List the steps that do something: without channels to discard, treatments coincide."""
    steps = parse_treatment(treatment).steps
    return tuple(str(step) for step in steps if discarded or not step.wants("channels"))


def _massive_channels(taps: Sequence[Tap]) -> tuple[int, ...]:
    recorder = ChannelRecorder()
    for tap in taps:
        recorder.update(tap.x)
    return recorder.compute().massive()


def _name(cell: Cell, channels: Mapping[int, tuple[int, ...]] | None) -> str:
    discarded = "" if channels is None else f" {list(channels.get(cell.block, ()))}"
    return f"{cell.block} {cell.treatment}{discarded}"
