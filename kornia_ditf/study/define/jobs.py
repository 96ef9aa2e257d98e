"""Jobs as values that are sent to workers, and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kornia_ditf.protocols.protocol import Fit, Protocol
from kornia_ditf.study.define.forwards import ForwardGroup
from kornia_ditf.study.define.spec import DatasetChoice, MatcherChoice


@dataclass(frozen=True, slots=True, eq=False)
class Prepare:
    """Load a group, find its unknown massive channels, and identify its members.

    Args:
        group: what to load.
        fit: how images are fitted.
        images: to find massive channels in.
        path: where the findings are kept.
    """

    group: ForwardGroup
    fit: Fit
    images: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Describe:
    """Compute the descriptors of images for several members of a group.

    Args:
        group: what to describe with.
        channels: by member, the massive channels to discard.
        fit: how images are fitted.
        images: path, prompt, pose (see `POSES`) and by member the key of each map that is missing.
        identities: by member, for the log of costs.
    """

    group: ForwardGroup
    channels: Mapping[str, tuple[int, ...] | None]
    fit: Fit
    images: tuple[tuple[str, str | None, str, Mapping[str, str]], ...]
    identities: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Pairs or sequences to score.

    Args:
        dataset: that the pairs are of.
        identity: of the descriptor or matcher, for the log of costs.
        protocol: how to score.
        folder: where the records go.
        pairs: of each pair or sequence the index in the data set, the key of the record, and the
            keys of its images' maps.
    """

    dataset: DatasetChoice
    identity: str
    protocol: Protocol
    folder: str
    pairs: tuple[tuple[int, str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Evaluate(_Scoring):
    """Score pairs by their maps, on the device where these were described."""

    device: str


@dataclass(frozen=True, slots=True)
class Compare(_Scoring):
    """Match pairs with a matcher, which needs no maps, and score them."""

    matcher: MatcherChoice


Job: TypeAlias = Prepare | Describe | Evaluate | Compare


@dataclass(slots=True)
class Outcome:
    """Result of a job.

    Args:
        count: images or pairs that are done.
        seconds: what each took.
        image_seconds: what each image took that a matcher read.
        failures: what could not be done, and why.
        damaged: files that were found damaged, removed, and must be made again.
        bytes: of a map, the mean.
        shares: by member, the part of a description's forwards that it would take by itself.
        costs: the largest peak of memory and the like, by the names of `Cost`'s fields.
        values: what a `Prepare` found out.
    """

    count: int = 0
    seconds: list[float] = field(default_factory=list)
    image_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    bytes: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings shared by all workers of a study.

    Args:
        cache: folder of the maps.
        dtype: of the maps, by name.
        reach: by weights, the last block that any group needs.
    """

    cache: str
    dtype: str
    reach: Mapping[str, int]
