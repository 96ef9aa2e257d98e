"""Reading study files: YAML without surprises, and errors that name the line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError
from yaml.error import MarkedYAMLError

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.study.define.spec import (
    CorruptionChoice,
    DatasetChoice,
    DescriptorChoice,
    MatcherChoice,
    ProtocolChoice,
    ReportChoice,
    Reported,
    Study,
)
from kornia_ditf.utils.checks import did_you_mean

Place: TypeAlias = tuple[str | int, ...]

_MAX_CHARACTERS = 100_000
_MAX_VALUES = 50_000
_MAX_DEPTH = 20
_MAX_SHOWN = 80


class _Loader(yaml.SafeLoader):
    """Loads YAML 1.1 without timestamps, a date is text, and without deep nesting."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1  # composing is recursive
        if self.depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH}", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_study(path: str | Path) -> Study:
    """Read a study file; relative `root` and `source` paths are relative to its folder.

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
    """Read a study from YAML text; arguments and errors as `read_study`.

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
    values, lines = _load(text, name)
    if not isinstance(values, dict):
        raise InvalidArgumentError(
            f"{name}: a study is a mapping with {', '.join(Study.model_fields)}"
        )
    study = check_study(values, name, lines, folder)
    for index, dataset in enumerate(study.datasets):
        if not study.protocols_of(dataset):
            line = _line(lines, ("datasets", index))
            raise InvalidArgumentError(
                f"{name}{line}: no protocol evaluates {dataset.name!r}; add `protocols: [dift]`, "
                "to the study or to this data set"
            )
    study.configurations()
    return study


def check_study(
    values: Mapping[str, Any],
    name: str,
    lines: Mapping[Place, int] = {},
    folder: Path | None = None,
) -> Study:
    """Create a study from the values of a file or a command line.

    Args:
        values: by the keys of a study file.
        name: what an error calls the study.
        lines: where in a file the values stand, by their paths of keys.
        folder: that relative paths begin at; None leaves them as they are.

    Raises:
        InvalidArgumentError: a key or value is wrong, or one is missing.
    """
    try:
        return Study.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise InvalidArgumentError(_explain(error, name, lines)) from error


def _load(text: str, name: str) -> tuple[object, Mapping[Place, int]]:
    """Return a file's values, and the line of each by its path of keys."""
    if len(text) > _MAX_CHARACTERS:
        raise InvalidArgumentError(
            f"{name}: a study has at most {_MAX_CHARACTERS:,} characters, got {len(text):,}"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = _walk(node, name)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidArgumentError(f"{where}: not valid YAML ({problem})") from error
    except InvalidArgumentError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML lets Python's own errors through for malformed numbers, tags and escapes.
        raise InvalidArgumentError(f"{name}: not valid YAML ({_shortened(str(error))})") from error


def _walk(
    node: yaml.Node, name: str, place: Place = (), found: dict[Place, int] | None = None
) -> dict[Place, int]:
    """Map the path of every value to the line that it begins in, counted from 1."""
    found = {} if found is None else found
    line = node.start_mark.line + 1
    # Aliases let a few lines stand for any number of values, or hold themselves.
    if len(found) > _MAX_VALUES or len(place) > _MAX_DEPTH:
        raise InvalidArgumentError(
            f"{name}, line {line}: more than {_MAX_VALUES:,} values, or nested deeper than "
            f"{_MAX_DEPTH}"
        )
    found.setdefault(place, line)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, name, (*place, index), found)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                raise InvalidArgumentError(
                    f"{name}, line {line}: a key must be text; put it in quotation marks"
                )
            if (*place, key.value) in found:
                raise InvalidArgumentError(f"{name}, line {line}: {key.value!r} is given twice")
            found[*place, key.value] = line
            _walk(child, name, (*place, key.value), found)
    return found


_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Study,
    ("descriptors",): DescriptorChoice,
    ("matchers",): MatcherChoice,
    ("datasets",): DatasetChoice,
    ("protocols",): ProtocolChoice,
    ("datasets", "protocols"): ProtocolChoice,
    ("datasets", "corrupt"): CorruptionChoice,
    ("reported",): Reported,
    ("report",): ReportChoice,
}


def _explain(error: ValidationError, name: str, lines: Mapping[Place, int]) -> str:
    """Describe the first mistake, and count the others."""
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    place: Place = first["loc"]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    path = _shortened(path)
    parent = tuple(part for part in place[:-1] if isinstance(part, str))
    if first["type"] == "extra_forbidden" and parent in _MODELS:
        known = list(_MODELS[parent].model_fields)
        near = did_you_mean(place[-1], known)
        reason = f"there is no key {path!r}{near}; known: {', '.join(known)}"
    elif first["type"] == "missing":
        reason = f"{path!r} is missing"
    else:
        expected = first["msg"][0].lower() + first["msg"][1:]
        reason = f"{path!r} is {_shortened(repr(first['input']))}; {expected}"
    more = f" (and {len(mistakes) - 1} more mistakes)" if len(mistakes) > 1 else ""
    return f"{name}{_line(lines, place)}: {reason}{more}"


def _line(lines: Mapping[Place, int], place: Place) -> str:
    while place and place not in lines:
        place = place[:-1]
    return f", line {lines[place]}" if place in lines else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
