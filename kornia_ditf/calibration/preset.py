"""A calibrated preset: the chosen setting, the weights it holds for, and how it was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import InvalidArgumentError, PresetError
from kornia_ditf.utils.checks import check_integer, check_number, check_timestep
from kornia_ditf.utils.files import atomic_write

FORMAT = 1
# A plugin's steps are looked up where they are used: here they may be missing.
_STEP = r"[a-z][a-z0-9_+-]*(\([^()]*\))?"
_TREATMENT = rf"{_STEP}( > {_STEP})*"
_HOW = "`kornia-ditf calibrate` writes such files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Which weights a preset was measured on.

    Args:
        identity: the hub's repository and commit, or a folder's name and digest.
        fingerprint: of the transformer's tensors, the same in every copy; None where not known.
        blocks: number of blocks, all lists together.
        width: channels of the stream.
    """

    identity: str
    fingerprint: str | None
    blocks: int
    width: int

    def __post_init__(self) -> None:
        for name in ("blocks", "width"):
            check_integer(name, getattr(self, name), minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The chosen setting, as `DiTFConfig` names it."""

    block: int
    timestep: float
    long_side: int
    ensemble: int
    treatment: str
    massive_channels: tuple[int, ...] | None

    def __post_init__(self) -> None:
        check_integer("block", self.block, minimum=0)
        check_timestep(self.timestep)
        for name in ("long_side", "ensemble"):
            check_integer(name, getattr(self, name), minimum=1)
        if not re.fullmatch(_TREATMENT, self.treatment):
            raise InvalidArgumentError(f"treatment must name steps, got {self.treatment!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a setting was chosen.

    Args:
        task: `same-scene`, `semantic`, or the data set with its split.
        criterion: the score in words.
        score: of the setting, in [0, 1].
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        certainty: share of the bootstrap's resamples in which the setting is best or tied.
        samples: images, or pairs of images, that were resampled.
        images: SHA-256 of what was scored.
        date: when.
        computed: dtype and other settings of the backbone.
        cost: noisy images and floating-point operations, spent and for the whole grid.
        versions: of the libraries.
    """

    task: str
    criterion: str
    score: float
    low: float
    high: float
    certainty: float
    samples: int
    images: str
    date: str
    computed: str
    cost: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("score", "low", "high", "certainty"):
            check_number(name, getattr(self, name), "[0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A calibrated preset.

    Args:
        backbone: the name under which it was calibrated; None for a folder or repository that has
            none.
        weights: on which it was measured.
        settings: what was chosen.
        measured: how.
    """

    backbone: str | None
    weights: Weights
    settings: Settings
    measured: Measured

    def __post_init__(self) -> None:
        check_integer("block", self.settings.block, minimum=0, maximum=self.weights.blocks - 1)
        for channel in self.settings.massive_channels or ():
            check_integer("massive_channels", channel, 0, self.weights.width - 1)

    def concerns(self, spec: BackboneSpec) -> bool:
        """Whether the preset may hold for a backbone, as far as its description tells.

        Two names of the same weights, such as those of two protocols, keep their presets apart.
        """
        named = spec.name != spec.repo
        same = not named or self.backbone in (None, spec.name)
        return same and (spec.blocks, spec.width) == (self.weights.blocks, self.weights.width)

    def apply(self, spec: BackboneSpec, origin: str) -> BackboneSpec:
        """Return a backbone's spec with the preset's numbers; `origin` says whose they are."""
        source = f"{origin}: {self.describe()}"
        return replace(spec, **asdict(self.settings), protocol="", calibrated=True, source=source)

    def describe(self) -> str:
        """Describe in a line what was optimised, how well, and how sure the choice is."""
        how = self.measured
        score, low, high = (f"{100 * value:.1f}" for value in (how.score, how.low, how.high))
        return (
            f"{how.task}, {score} % ({low} to {high}) on {how.samples} samples, best or tied in "
            f"{how.certainty:.0%} of resamples, {how.date[:10]}"
        )

    def save(self, path: Path) -> None:
        """Write the preset, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_json(), "utf-8")

    def to_json(self) -> str:
        """Return the text of the preset's file."""
        return json.dumps({"kornia_ditf_preset": FORMAT, **asdict(self)}, indent=1) + "\n"


def read_preset(path: str | Path) -> Preset:
    """Read a preset's file.

    Raises:
        PresetError: it is missing, damaged, of another format, or a value is out of range.
    """
    file = Path(path).expanduser()
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise PresetError(
            f"there is no preset {file}; `kornia-ditf presets` lists yours"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise PresetError(f"{file} is not a calibrated preset ({error}); {_HOW}") from error
    if not isinstance(values, dict) or "kornia_ditf_preset" not in values:
        raise PresetError(f"{file} is not a calibrated preset; {_HOW}")
    if values.pop("kornia_ditf_preset") != FORMAT:
        raise PresetError(f"{file} is a preset of another format; this version reads {FORMAT}")
    try:
        preset: Preset = _read(Preset, values, str(file))
    except PresetError:
        raise
    except InvalidArgumentError as error:
        raise PresetError(f"{file}: {error}") from error
    return preset


_PARTS = {"weights": Weights, "settings": Settings, "measured": Measured}
# What JSON gives for a field, by its annotation.
_JSON: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "str | None": (str, type(None)),
    "tuple[int, ...] | None": (list, type(None)),
    **dict.fromkeys(("Mapping[str, float]", "Mapping[str, str]"), dict),
    **{kind.__name__: dict for kind in _PARTS.values()},
}


def _read(kind: type, values: Mapping[str, Any], where: str) -> Any:
    known = {each.name: str(each.type) for each in fields(kind)}
    wrong = sorted(set(values) ^ set(known))
    if wrong:
        what = "has no" if wrong[0] in known else "has an unknown"
        raise PresetError(f"{where} {what} {wrong[0]!r}; expected {', '.join(known)}")
    read: dict[str, Any] = {}
    for name, annotation in known.items():
        value = values[name]
        if not isinstance(value, _JSON[annotation]) or isinstance(value, bool):
            raise PresetError(f"{where} has a wrong {name}: {str(value)[:60]!r}")
        if name in _PARTS:
            value = _read(_PARTS[name], value, f"{where}: {name}")
        read[name] = tuple(value) if isinstance(value, list) else value
    return kind(**read)
