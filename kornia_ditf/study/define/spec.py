"""The schema of study files, and the configurations that sweeps multiply to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import did_you_mean

Value = TypeVar("Value")


_MAX_CONFIGURATIONS = 10_000
_MAX_LEVELS = 100


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _as_named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _one_for_each_level(value: object) -> object:
    """Repeat a data set for each level of a corruption, with the level in its label."""
    if not isinstance(value, list):
        return value
    found: list[object] = []
    for each in value:
        changes = _one_for_each(each.get("corrupt")) if isinstance(each, dict) else []
        if not changes:
            found.append(each)
            continue
        label = each.get("label") or " ".join(
            str(each[key]) for key in ("name", "split") if each.get(key)
        )
        for change in changes:
            shown = f"{label}, {change.get('kind')} {change['level']}"
            found.append({**each, "label": shown, "corrupt": change})
    return found


def _one_for_each(corrupt: Any) -> list[dict[str, Any]]:
    """List corruptions of one level each; none where there is only one, or something is wrong."""
    changes = corrupt if isinstance(corrupt, list) else [corrupt]
    if not all(isinstance(change, dict) for change in changes):
        return []
    levels: list[Any] = [_as_list(change.get("level")) for change in changes]
    if changes[0] is corrupt and levels == [[corrupt.get("level")]]:
        return []
    if not all(0 < len(each) <= _MAX_LEVELS for each in levels):
        return []
    return [
        {**change, "level": level}
        for change, own in zip(changes, levels, strict=True)
        for level in own
    ]


def _rooted(value: str, info: ValidationInfo) -> str:
    """Resolve a path against the folder of the study's file, where it comes from one."""
    folder: Path | None = (info.context or {}).get("folder")
    if folder is None:
        return value
    try:
        return str((folder / Path(value).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # NUL, link loops, unknown users
        reason = {"reason": str(error)}
        raise PydanticCustomError("path", "it cannot be a path ({reason})", reason) from error


def _rooted_folder(value: str, info: ValidationInfo) -> str:
    path = _rooted(value, info)
    return path if Path(path).is_dir() else value  # a repository on the hub


Rooted = Annotated[str, Field(min_length=1), AfterValidator(_rooted)]
Sweep = Annotated[list[Value], BeforeValidator(_as_list), Field(min_length=1)]
Options = dict[str, JsonValue]

_MAX_TOLD = 12
_SWEPT = (
    "block",
    "timestep",
    "treatment",
    "facet",
    "ensemble",
    "prompt",
    "long_side",
    "seed",
    "upsample",
    "pca",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DescriptorChoice(_Strict):
    """A descriptor and its settings; a setting that is a list is swept.

    `name` is what `create_descriptor` takes; `label` is what tables call it. `prompt` may hold
    `{label}` (or `{category}`), which is what an image shows. `timesteps` are averaged and `blocks`
    joined, and not swept. `pca` reduces each pair's tokens together, or with a list of numbers each
    part of them (`[[256, 128]]`); `projection` is the file of a fixed one. `upsample` is
    `bilinear(2)` or the like, or `none`. `options` go to the loader (dtype, device ...).
    """

    name: str
    label: str | None = None
    source: Annotated[str, Field(min_length=1), AfterValidator(_rooted_folder)] | None = None
    block: Sweep[int] | None = None
    timestep: Sweep[float] | None = None
    treatment: Sweep[str] | None = None
    facet: Sweep[str] | None = None
    ensemble: Sweep[int] | None = None
    prompt: Sweep[str] | None = None
    long_side: Sweep[int] | None = None
    seed: Sweep[int] | None = None
    upsample: Sweep[str] | None = None
    pca: Sweep[int | list[int]] | None = None
    massive_channels: list[int] | Literal["gates"] | None = None
    timesteps: Annotated[list[float], Field(min_length=1)] | None = None
    blocks: Annotated[list[int], Field(min_length=1)] | None = None
    projection: Rooted | None = None
    options: Options = {}

    @property
    def size(self) -> int:
        """Number of configurations that the sweeps multiply to."""
        return prod(len(getattr(self, name) or [None]) for name in _SWEPT)


class MatcherChoice(_Strict):
    """A matcher that stands beside the descriptors; docs/matchers.md lists them.

    `options` go to `load_matcher`; `timeout` is how many seconds a pair may take.
    """

    name: str = Field(min_length=1)
    label: str | None = None
    options: Options = {}
    timeout: float = Field(default=120.0, gt=0, le=86_400)

    @property
    def shown(self) -> str:
        """What tables call it."""
        return self.label or self.name


class ProtocolChoice(_Strict):
    """A named protocol, and what is changed of it."""

    name: str
    overrides: Options = {}


Protocols = Annotated[
    list[Annotated[ProtocolChoice, BeforeValidator(_as_named)]],
    BeforeValidator(_as_list),
    Field(min_length=1),
]


class CorruptionChoice(_Strict):
    """A change of second images; a list of levels, or of changes, makes as many data sets."""

    kind: str
    level: float
    seed: int = Field(default=0, ge=0)


class DatasetChoice(_Strict):
    """A data set; `limit` draws pairs by `seed`, and `protocols` replace the study's.

    `captions` is a JSON file from images' paths under `root` to texts, which replace `{label}`
    in prompts.
    """

    name: str
    label: str | None = None
    root: Rooted | None = None
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = 0
    captions: Rooted | None = None
    options: Options = {}
    corrupt: CorruptionChoice | None = None
    protocols: Protocols | None = None


class ReportChoice(_Strict):
    """Settings of the report; docs/studies.md explains each."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    permutations: int = Field(default=10000, ge=100, le=1_000_000)
    resample: Literal["pair", "image"] = "pair"
    seed: int = Field(default=0, ge=0)
    pictures: int = Field(default=3, ge=0)
    viewer: int = Field(default=12, ge=0, le=1000)
    reference: str | None = None


class Reported(_Strict):
    """A published number, shown as reported and never as measured."""

    what: str
    value: float
    metric: str
    source: str


class Study(_Strict):
    """The content of a study file."""

    name: str
    descriptors: list[DescriptorChoice] = []
    matchers: list[Annotated[MatcherChoice, BeforeValidator(_as_named)]] = []
    datasets: Annotated[
        list[DatasetChoice], BeforeValidator(_one_for_each_level), Field(min_length=1)
    ]
    protocols: Protocols | None = None
    reported: list[Reported] = []
    cache_dtype: Literal["float32", "float16"] = "float32"
    report: ReportChoice = ReportChoice()

    def configurations(self) -> list[Configuration]:
        """Lay out the sweeps, in the order of the file.

        Raises:
            InvalidArgumentError: there is neither a descriptor nor a matcher, two are the same,
                there are more than 10,000, or the report's `reference` is none of them.
        """
        if not self.descriptors and not self.matchers:
            raise InvalidArgumentError(
                f"{self.name!r} compares nothing: name `descriptors`, `matchers` or both"
            )
        count = sum(each.size for each in self.descriptors)
        if count > _MAX_CONFIGURATIONS:
            raise InvalidArgumentError(
                f"the sweeps of {self.name!r} multiply to {count:,} configurations; at most "
                f"{_MAX_CONFIGURATIONS:,} are possible, so sweep fewer values or split the study"
            )
        found: list[Configuration] = []
        for choice in self.descriptors:
            swept = {
                name: [_whole(value) for value in getattr(choice, name)]
                for name in _SWEPT
                if getattr(choice, name) is not None
            }
            fixed: dict[str, Any] = dict(choice.options)
            for name in ("massive_channels", "timesteps", "blocks", "projection"):
                value = getattr(choice, name)
                if value is not None:
                    fixed[name] = value if isinstance(value, str) else tuple(value)
            for values in product(*swept.values()):
                settings = dict(zip(swept, values, strict=True))
                varied = [f"{n} {_short(settings[n])}" for n in swept if len(swept[n]) > 1]
                label = " ".join([choice.label or choice.name, *varied])
                source = choice.source
                found.append(Configuration(label, choice.name, source, {**fixed, **settings}))
        labels = Counter([each.label for each in found] + [each.shown for each in self.matchers])
        twice, times = labels.most_common(1)[0]
        if times > 1:
            raise InvalidArgumentError(
                f"two descriptors or matchers are called {twice!r}: give each `- name: ...` "
                "its own `label`"
            )
        reference = self.report.reference
        if reference is not None and reference not in labels:
            known = ", ".join(list(labels)[:_MAX_TOLD])
            raise InvalidArgumentError(
                f"report.reference is {reference!r}, and nothing has that label"
                f"{did_you_mean(reference, labels)}; known: {known}"
            )
        return found

    def protocols_of(self, dataset: DatasetChoice) -> Sequence[ProtocolChoice]:
        """List the protocols by which a data set is evaluated."""
        return dataset.protocols or self.protocols or ()


@dataclass(frozen=True, slots=True)
class Configuration:
    """One descriptor with one value for each setting.

    Args:
        label: what tables call it; unique in the study.
        name: what `create_descriptor` takes.
        source: where its weights are, if not in their own place.
        settings: the options of `create_descriptor` that the study gives.
    """

    label: str
    name: str
    source: str | None
    settings: Mapping[str, Any]


def _whole(value: Any) -> Any:
    # 261 and 261.0 are one timestep, and must have one name.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(value: Any) -> str:
    return repr(value) if value == "" else str(value)
