"""The pairs and sequences that a study scores, each with a key of its content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from kornia_ditf.datasets.corruption import CorruptedPairs, Corruption
from kornia_ditf.datasets.pairs import Pair, PairDataset
from kornia_ditf.datasets.sequences import FrameSequence, SequenceDataset
from kornia_ditf.errors import DatasetError, InvalidArgumentError
from kornia_ditf.matching.poses import POSES, UPRIGHT, PoseSearch
from kornia_ditf.protocols.presets import find_protocol
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.protocols.select import select_pairs
from kornia_ditf.registry.datasets import load_dataset
from kornia_ditf.study.define.spec import DatasetChoice, ProtocolChoice, Study
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.utils.cache import sha256
from kornia_ditf.utils.checks import no_such
from kornia_ditf.utils.files import os_errors_as

Value = TypeVar("Value")

CALIBRATION_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """A pair or a sequence of a data set, as it is kept while a study runs.

    Args:
        index: in its data set.
        key: digest of all that is known of it, its images' bytes included.
        images: path, digest of the bytes, and what is shown, of each image.
    """

    index: int
    key: str
    images: tuple[tuple[str, str, str], ...]

    def views(
        self, template: str | None, align: PoseSearch
    ) -> Iterator[tuple[str, str, str | None, str]]:
        """Yield path, digest, prompt and pose of all that is described; image A in all its poses.

        Args:
            template: of the prompts.
            align: which poses a protocol compares.
        """
        for place, (path, digest, label) in enumerate(self.images):
            for pose in POSES[align] if place == 0 else (UPRIGHT,):
                yield path, digest, prompt_for(template, label), pose


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A data set of a study, listed.

    Args:
        choice: what the study says of it.
        label: what tables call it.
        protocols: how it is scored, and what of it, in its order; an sample may come twice.
        calibration: images in which massive channels are sought, and digests of their bytes;
            a limit on the pairs does not change them.
    """

    choice: DatasetChoice
    label: str
    protocols: tuple[tuple[Protocol, tuple[Sample, ...]], ...]
    calibration: tuple[tuple[str, str], ...]


def list_study(study: Study, part: tuple[int, int] | None = None) -> list[ListedSet]:
    """List every pair of every data set, with a digest of all that decides its result.

    Args:
        study: which data sets, and by which protocols.
        part: take one of several equal parts of every list, as (number, count); numbers start at 1.
            Pairs that follow each other stay together, since they often share images.

    Raises:
        InvalidArgumentError: no data set or protocol has a name, two data sets share a label, a
            protocol is not for such a data set, or there is no such part.
        DatasetError: a file is missing or malformed.
    """
    number, count = part or (1, 1)
    if not 1 <= number <= count:
        raise InvalidArgumentError(f"a part is NUMBER/COUNT, such as 1/2, got {number}/{count}")
    chosen = [[resolve_protocol(c) for c in study.protocols_of(d)] for d in study.datasets]
    return [
        _list_set(choice, label, protocols, number, count)
        for choice, label, protocols in zip(
            study.datasets, dataset_labels(study), chosen, strict=True
        )
    ]


def _list_set(
    choice: DatasetChoice, label: str, protocols: Sequence[Protocol], number: int, count: int
) -> ListedSet:
    dataset = open_dataset(choice)
    captions = read_captions(choice)
    digests: dict[Path, tuple[str, str]] = {}
    samples: dict[int, Sample] = {}

    def listed(index: int) -> Sample:
        if index not in samples:
            samples[index] = _captioned(_list_sample(dataset[index], index, digests), captions)
        return samples[index]

    scored = []
    for protocol in protocols:
        if (protocol.task == "masks") != isinstance(dataset, SequenceDataset):
            raise InvalidArgumentError(
                f"the protocol {protocol.name!r} scores {protocol.task}, and {choice.name!r} has "
                f"none; it is meant for {', '.join(protocol.datasets)}"
            )
        indices = list(range(len(dataset)))
        if not isinstance(dataset, SequenceDataset):
            indices = select_pairs(dataset, protocol)
        places = choose_pairs(len(indices), choice.limit, choice.seed)
        start, stop = (len(places) * edge // count for edge in (number - 1, number))
        if start == stop:
            raise InvalidArgumentError(
                f"{label!r} has {len(places)} pairs, too few for {count} parts"
            )
        places = places[start:stop]
        scored.append((protocol, tuple(listed(indices[place]) for place in places)))
    calibration: dict[str, str] = {}
    for index in range(len(dataset)):
        if len(calibration) >= CALIBRATION_IMAGES:
            break
        # Not kept among the samples: it may be one that is not scored.
        images = _list_sample(dataset[index], index, digests).images
        calibration |= {path: digest for path, digest, _ in images}
    first = tuple(calibration.items())[:CALIBRATION_IMAGES]
    return ListedSet(choice, label, tuple(scored), first)


def open_dataset(choice: DatasetChoice) -> PairDataset | SequenceDataset:
    """Read a data set's list of pairs.

    Raises:
        InvalidArgumentError: no data set has the name, an option is unknown, or it has no pairs.
        DatasetError: its files are missing or malformed.
    """
    if choice.root is None:
        raise InvalidArgumentError(f"the data set {choice.name!r} needs `root`, its folder")
    options = {key: as_tuple(value) for key, value in choice.options.items()}
    if choice.split is not None:
        options["split"] = choice.split
    loaded: Any = load_dataset(choice.name, choice.root, **options)
    if not len(loaded):
        raise DatasetError(choice.root, f"{choice.name} has no pair there")
    if choice.corrupt is None:
        return loaded  # type: ignore[no-any-return]
    if isinstance(loaded, SequenceDataset):
        raise InvalidArgumentError(f"corrupt changes pairs, and {choice.name!r} has videos")
    change = choice.corrupt
    return CorruptedPairs(
        loaded, Corruption(kind=change.kind, level=change.level, seed=change.seed)
    )


def read_captions(choice: DatasetChoice) -> dict[str, str]:
    """Read the captions of a data set's images, by their full paths; empty where it has none.

    Raises:
        DatasetError: the file cannot be read, or is not an object of paths and texts.
    """
    if choice.captions is None:
        return {}
    file = Path(choice.captions)
    try:
        captions = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(file, f"captions cannot be read ({error})") from error
    if not isinstance(captions, dict) or not all(isinstance(v, str) for v in captions.values()):
        raise DatasetError(
            file, 'captions must be one JSON object, such as {"JPEGImages/cat/1.jpg": "a cat"}'
        )
    return {str(Path(choice.root or ".") / name): text for name, text in captions.items()}


def _captioned(sample: Sample, captions: Mapping[str, str]) -> Sample:
    """Replace labels of images by captions; an image without one keeps its label."""
    if not captions:
        return sample
    images = tuple(
        (path, digest, captions.get(path, label)) for path, digest, label in sample.images
    )
    key = content_key(item=sample.key, captions=[caption for _, _, caption in images])
    return replace(sample, key=key, images=images)


def choose_pairs(count: int, limit: int | None, seed: int) -> list[int]:
    """Draw `limit` of `count` pairs; a larger limit keeps those of a smaller one.

    Example:
        >>> set(choose_pairs(100, 5, 0)) < set(choose_pairs(100, 6, 0))
        True
    """
    if limit is None or limit >= count:
        return list(range(count))
    order = list(range(count))
    Random(seed).shuffle(order)
    return sorted(order[:limit])


def resolve_protocol(choice: ProtocolChoice) -> Protocol:
    """Return a named protocol with its overrides, which become part of its name.

    Raises:
        InvalidArgumentError: no protocol has the name, no field of it, or a value is wrong.

    Example:
        >>> choice = ProtocolChoice(name="dift-spair", overrides={"alphas": [0.2]})
        >>> resolve_protocol(choice).name
        'dift-spair with alphas=[0.2]'
    """
    protocol = find_protocol(choice.name)
    if not choice.overrides:
        return protocol
    changed = ", ".join(f"{key}={value}" for key, value in sorted(choice.overrides.items()))
    name = f"{protocol.name} with {changed}"
    return replace(_override(protocol, choice.overrides, choice.name), name=name)


def _override(value: Value, changes: Mapping[str, Any], name: str) -> Value:
    known = [field.name for field in fields(value) if field.name != "name"]  # type: ignore[arg-type]
    made = {}
    for key, change in changes.items():
        if key not in known:
            raise InvalidArgumentError(no_such(f"field of the protocol {name!r}", key, known))
        old = getattr(value, key)
        nested = is_dataclass(old) and isinstance(change, Mapping)
        made[key] = _override(old, change, name) if nested else as_tuple(change)
    try:
        return replace(value, **made)  # type: ignore[type-var]
    except TypeError as error:
        raise InvalidArgumentError(f"the protocol {name!r}: {error}") from error


def _list_sample(
    value: Pair | FrameSequence, index: int, digests: dict[Path, tuple[str, str]]
) -> Sample:
    if isinstance(value, FrameSequence):
        frames = [(*_digested(path, digests), value.label) for path in value.frames]
        masks = [path and file_digest(path) for path in value.masks]
        content = {"names": [value.name], "masks": masks, "size": value.size}
        key = content_key(images=[digest for _, digest, _ in frames], **content)
        return Sample(index, key, tuple(frames))
    image_a = (*_digested(value.image_a, digests), value.label_a)
    image_b = (*_digested(value.image_b, digests), value.label_b)
    return Sample(index, _pair_key(value, image_a[1], image_b[1]), (image_a, image_b))


def _digested(path: Path, digests: dict[Path, tuple[str, str]]) -> tuple[str, str]:
    # One string for all pairs of an image: a list of pairs must stay small.
    if path not in digests:
        digests[path] = str(path), file_digest(path)
    return digests[path]


def file_digest(path: Path) -> str:
    """Digest a file's bytes.

    Raises:
        DatasetError: it cannot be read.
    """
    with os_errors_as(partial(DatasetError, path), "it cannot be read"):
        return sha256(path)[:40]


def _pair_key(pair: Pair, digest_a: str, digest_b: str) -> str:
    posed = {}
    if pair.pose is not None:
        parts = (pair.camera_a, pair.camera_b, pair.pose)
        posed["posed"] = [part.tolist() for part in parts if part is not None]
    return content_key(
        images=[digest_a, digest_b],
        names=[pair.name, pair.category],
        points=[pair.points_a.tolist(), pair.points_b.tolist()],
        visibility=[pair.visibility_a.tolist(), pair.visibility_b.tolist()],
        geometry=[pair.size_a, pair.size_b, pair.box_a, pair.box_b],
        homography=None if pair.homography is None else pair.homography.tolist(),
        **posed,
    )


def dataset_labels(study: Study) -> list[str]:
    """Return what tables call each data set of a study.

    Raises:
        InvalidArgumentError: two have the same label.
    """
    labels = [c.label or " ".join(filter(None, (c.name, c.split))) for c in study.datasets]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InvalidArgumentError(f"two data sets are called {twice!r}: give each a `label`")
    return labels


def as_tuple(value: Any) -> Any:
    """Turn the lists of YAML into the tuples of configurations."""
    return tuple(as_tuple(each) for each in value) if isinstance(value, list) else value


def prompt_for(template: str | None, label: str) -> str | None:
    """Fill the label of an image into a prompt; without a label the prompt is empty.

    Example:
        >>> prompt_for("a photo of a {label}", "cat"), prompt_for("a photo of a {category}", "cat")
        ('a photo of a cat', 'a photo of a cat')
    """
    if template is None or not ("{label}" in template or "{category}" in template):
        return template
    return template.replace("{label}", label).replace("{category}", label) if label else ""
