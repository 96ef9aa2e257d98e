"""The jobs of describing and scoring: a pair is scored as soon as its images are described."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from kornia_ditf.study.define.jobs import Describe, Evaluate, Job, Outcome
from kornia_ditf.study.define.listing import Sample
from kornia_ditf.study.run.costs import scoring_identity
from kornia_ditf.study.run.experiments import DescriptorExperiment
from kornia_ditf.study.run.preparation import Task

Piece = TypeVar("Piece")
Pending = Sequence[tuple[DescriptorExperiment, Sequence[Sample]]]
_Pair = tuple[int, str, tuple[str, ...]]
"""An index in the data set, the key of the record, and the keys of the maps."""

_IMAGES_AT_ONCE = 2
PAIRS_AT_ONCE = 16


class Pipeline:
    """Describes images that lack maps, and scores pairs whose maps are there.

    Args:
        pending: experiments with the pairs that have no records.
        tasks: the study's.
        has: whether a map is there, by its key.
    """

    def __init__(self, pending: Pending, tasks: Sequence[Task], has: Callable[[str], bool]) -> None:
        self._experiments = [experiment for experiment, _ in pending]
        self._has, self._there = has, dict[str, bool]()
        self._ready: dict[int, list[_Pair]] = defaultdict(list)
        self._waiting: dict[str, list[tuple[int, _Pair]]] = defaultdict(list)
        for place, (experiment, samples) in enumerate(pending):
            for sample in samples:
                keys = tuple(key for *_, key in experiment.images(sample))
                self._there.update({key: has(key) for key in keys if key not in self._there})
                self._wait(place, (sample.index, sample.key, keys))
        self.descriptions = list(_descriptions(pending, tasks, self._there))
        self._left = len(self.descriptions)

    def _wait(self, place: int, pair: _Pair) -> None:
        """Let a pair wait for the first map that it lacks; one that lacks none is ready."""
        lacking = next((key for key in pair[2] if not self._there[key]), None)
        if lacking is None:
            self._ready[place].append(pair)
        else:
            self._waiting[lacking].append((place, pair))

    @property
    def described(self) -> bool:
        """Whether no description is left to be done."""
        return not self._left

    def first(self) -> Iterator[Job]:
        """List the jobs that can be done at once: pairs whose maps are there, then images."""
        yield from self._evaluations()
        yield from self.descriptions

    def follow(self, job: Job, outcome: Outcome) -> list[Job]:
        """List the jobs that a job which is done makes possible."""
        if not isinstance(job, Describe):
            return []
        self._left -= 1
        for key in {key for *_, keys in job.images for key in keys.values()}:
            self._there[key] = self._has(key)
            for place, pair in self._waiting.pop(key, ()) if self._there[key] else ():
                self._wait(place, pair)
        return list(self._evaluations())

    def _evaluations(self) -> Iterator[Job]:
        """Take ready pairs in full pieces; at the end, the rest as well."""
        for place, pairs in self._ready.items():
            whole = len(pairs) - (len(pairs) % PAIRS_AT_ONCE if self._left else 0)
            experiment = self._experiments[place]
            for some in pieces(pairs[:whole], PAIRS_AT_ONCE):
                yield Evaluate(
                    experiment.listed.choice,
                    scoring_identity(experiment.identity, experiment.pca),
                    replace(experiment.protocol, pca=experiment.pca),
                    str(experiment.folder),
                    some,
                    experiment.device,
                )
            del pairs[:whole]


def _descriptions(
    pending: Pending, tasks: Sequence[Task], has: dict[str, bool]
) -> Iterator[Describe]:
    """List the images that lack maps, each once for all configurations of a forward pass."""
    wanted: dict[int, dict[tuple[str, str | None, str], dict[str, str]]] = {}
    claimed: set[str] = set()
    members: dict[int, dict[str, DescriptorExperiment]] = {}
    for experiment, pairs in pending:
        images = wanted.setdefault(experiment.task, {})
        members.setdefault(experiment.task, {})[experiment.configuration.label] = experiment
        for pair in pairs:
            for path, prompt, pose, key in experiment.images(pair):
                if key not in claimed and not has[key]:
                    claimed.add(key)
                    seen = images.setdefault((path, prompt, pose), {})
                    seen[experiment.configuration.label] = key
    for place in sorted(wanted):
        listed = [(*seen, keys) for seen, keys in wanted[place].items()]
        task = tasks[place]
        channels = {label: experiment.channels for label, experiment in members[place].items()}
        identities = {label: experiment.identity for label, experiment in members[place].items()}
        for some in pieces(listed, _IMAGES_AT_ONCE):
            yield Describe(task.group, channels, task.fit, some, identities)


def pieces(samples: Sequence[Piece], count: int) -> Iterator[tuple[Piece, ...]]:
    """Split a list into tuples of equal length, the last one possibly shorter."""
    return (tuple(samples[start : start + count]) for start in range(0, len(samples), count))


def size(jobs: Iterable[Job]) -> int:
    """Count the images or pairs of jobs."""
    return sum(
        len(job.images) if isinstance(job, Describe) else len(getattr(job, "pairs", (job,)))
        for job in jobs
    )
