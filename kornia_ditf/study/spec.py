"""A YAML file in; a study whose every value is checked, and its sweeps laid out, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from kornia_ditf.errors import InvalidArgumentError

Place = tuple[str | int, ...]
Item = TypeVar("Item")


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _as_named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Sweep = Annotated[list[Item], BeforeValidator(_as_list), Field(min_length=1)]
Options = dict[str, JsonValue]

_SWEPT = ("block", "timestep", "treatment", "ensemble", "prompt", "long_side", "seed")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DescriptorChoice(_Strict):
    """A descriptor and its settings; a setting that is a list is swept.

    `name` is what `create_descriptor` takes; `label` is what tables call it. `prompt` may hold
    `{label}`, which is what an image shows. `options` go to the loader (dtype, device ...).
    """

    name: str
    label: str | None = None
    source: str | None = None
    block: Sweep[int] | None = None
    timestep: Sweep[float] | None = None
    treatment: Sweep[str] | None = None
    ensemble: Sweep[int] | None = None
    prompt: Sweep[str] | None = None
    long_side: Sweep[int] | None = None
    seed: Sweep[int] | None = None
    massive_channels: list[int] | None = None
    options: Options = {}


class ProtocolChoice(_Strict):
    """A named protocol, and what is changed of it."""

    name: str
    overrides: Options = {}


Protocols = Annotated[
    list[Annotated[ProtocolChoice, BeforeValidator(_as_named)]],
    BeforeValidator(_as_list),
    Field(min_length=1),
]


class DatasetChoice(_Strict):
    """A data set; `limit` takes so many pairs by a seeded draw, and `protocols` go first."""

    name: str
    label: str | None = None
    root: str | None = None
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seed: int = 0
    options: Options = {}
    protocols: Protocols | None = None


class ReportChoice(_Strict):
    """How the report judges; see docs/studies.md for what each number means."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)
    permutations: int = Field(default=10000, ge=100)
    resample: Literal["pair", "image"] = "pair"
    seed: int = 0
    pictures: int = Field(default=3, ge=0)
    reference: str | None = None


class Reported(_Strict):
    """A number that a publication reports; tables show it as reported, never as measured."""

    what: str
    value: float
    metric: str
    source: str


class Study(_Strict):
    """What a study file says."""

    name: str
    descriptors: Annotated[list[DescriptorChoice], Field(min_length=1)]
    datasets: Annotated[list[DatasetChoice], Field(min_length=1)]
    protocols: Protocols | None = None
    reported: list[Reported] = []
    cache_dtype: Literal["float32", "float16"] = "float32"
    report: ReportChoice = ReportChoice()

    def configurations(self) -> list[Configuration]:
        """Lay out the sweeps, in the order of the file.

        Raises:
            InvalidArgumentError: two are the same.
        """
        found: list[Configuration] = []
        for choice in self.descriptors:
            swept = {
                name: [_whole(value) for value in getattr(choice, name)]
                for name in _SWEPT
                if getattr(choice, name) is not None
            }
            fixed: dict[str, Any] = dict(choice.options)
            if choice.massive_channels is not None:
                fixed["massive_channels"] = tuple(choice.massive_channels)
            for values in product(*swept.values()):
                settings = dict(zip(swept, values, strict=True))
                varied = [f"{n} {_short(settings[n])}" for n in swept if len(swept[n]) > 1]
                label = " ".join([choice.label or choice.name, *varied])
                source = choice.source
                found.append(Configuration(label, choice.name, source, {**fixed, **settings}))
        labels = [each.label for each in found]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise InvalidArgumentError(
                f"two descriptors are called {twice!r}: give each `- name: ...` its own `label`"
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


def read_study(path: str | Path) -> Study:
    """Read and check a study file; relative `root` and `source` paths start at its folder.

    Raises:
        InvalidArgumentError: the file is missing, no YAML, or a value in it is wrong; the message
            names the line, the value and what was expected.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InvalidArgumentError(f"cannot read the study {file}: {reason}") from error
    return parse_study(text, name=str(file), folder=file.parent)


def parse_study(text: str, *, name: str = "study", folder: Path | None = None) -> Study:
    """Check a study given as YAML text; arguments and errors as `read_study`.

    Example:
        >>> study = parse_study('''
        ... name: treatments
        ... descriptors: [{name: nano, treatment: [raw, adaln]}]
        ... datasets: [{name: folder, root: photographs}]
        ... protocols: dift
        ... ''')
        >>> [each.label for each in study.configurations()]
        ['nano treatment raw', 'nano treatment adaln']
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_walk(node, (), name)) if node is not None else {}
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidArgumentError(f"{where}: this is no YAML ({problem})") from error
    if not isinstance(values, dict):
        raise InvalidArgumentError(
            f"{name}: a study is a mapping with {', '.join(Study.model_fields)}"
        )
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise InvalidArgumentError(_explain(error, name, lines)) from error
    for index, dataset in enumerate(study.datasets):
        if not study.protocols_of(dataset):
            line = _line(lines, ("datasets", index))
            raise InvalidArgumentError(
                f"{name}{line}: no protocol evaluates {dataset.name!r}; add `protocols: [dift]`, "
                "to the study or to this data set"
            )
    study.configurations()
    return study if folder is None else _rooted(study, folder)


def _whole(value: Any) -> Any:
    # 261 and 261.0 are one timestep, and must have one name.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(value: Any) -> str:
    return repr(value) if value == "" else str(value)


def _walk(node: yaml.Node, place: Place, name: str) -> list[tuple[Place, int]]:
    """List the place of every value and the line that it begins in, counted from 1."""
    found = [(place, node.start_mark.line + 1)]
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            found += _walk(child, (*place, index), name)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise InvalidArgumentError(f"{name}, line {line}: {key.value!r} is given twice")
            seen.add(key.value)
            found += _walk(child, (*place, key.value), name)
            found.append(((*place, key.value), line))
    return found


_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Study,
    ("descriptors",): DescriptorChoice,
    ("datasets",): DatasetChoice,
    ("protocols",): ProtocolChoice,
    ("datasets", "protocols"): ProtocolChoice,
    ("reported",): Reported,
    ("report",): ReportChoice,
}


def _explain(error: ValidationError, name: str, lines: Mapping[Place, int]) -> str:
    """Say what is wrong, the first mistake in full and how many more there are."""
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    place: Place = first["loc"]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    parent = tuple(part for part in place[:-1] if isinstance(part, str))
    if first["type"] == "extra_forbidden" and parent in _MODELS:
        known = list(_MODELS[parent].model_fields)
        near = get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}? " if near else ""
        reason = f"there is no key {path!r}; {advice}known: {', '.join(known)}"
    elif first["type"] == "missing":
        reason = f"{path!r} is missing"
    else:
        expected = first["msg"][0].lower() + first["msg"][1:]
        reason = f"{path!r} is {first['input']!r}; {expected}"
    more = f" (and {len(mistakes) - 1} more mistakes)" if len(mistakes) > 1 else ""
    return f"{name}{_line(lines, place)}: {reason}{more}"


def _line(lines: Mapping[Place, int], place: Place) -> str:
    while place and place not in lines:
        place = place[:-1]
    return f", line {lines[place]}" if place in lines else ""


def _rooted(study: Study, folder: Path) -> Study:
    """Let relative paths start at the study file's folder."""

    def rooted(value: str | None) -> str | None:
        return value if value is None else str((folder / Path(value).expanduser()).resolve())

    def weights(value: str | None) -> str | None:
        return rooted(value) if value and (folder / Path(value).expanduser()).is_dir() else value

    descriptors = [d.model_copy(update={"source": weights(d.source)}) for d in study.descriptors]
    datasets = [d.model_copy(update={"root": rooted(d.root)}) for d in study.datasets]
    return study.model_copy(update={"descriptors": descriptors, "datasets": datasets})
