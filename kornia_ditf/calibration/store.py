"""Where calibrated presets are kept, and which one holds for given weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.calibration.preset import Preset, read_preset
from kornia_ditf.errors import CheckpointError, HubError, PresetError, PresetWarning
from kornia_ditf.loading.checkpoint import Checkpoint
from kornia_ditf.loading.fingerprint import fingerprint
from kornia_ditf.utils.cache import cache_folder, user_folder
from kornia_ditf.utils.checks import no_such
from kornia_ditf.utils.files import make_folder

SHIPPED = Path(__file__).parent / "presets"
NO_PRESET = "none"
"""What to give as a preset for the numbers that come with the backbone."""

YOURS = "calibrated by you"


@dataclass(frozen=True, slots=True)
class Stored:
    """A preset's file.

    Args:
        path: of the file.
        origin: `calibrated by you`, or `calibrated` where it comes with the package.
        preset: what it holds; None where it cannot be read.
        problem: why.
    """

    path: Path
    origin: str
    preset: Preset | None
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's name without its suffix, by which commands take it."""
        return self.path.stem


def presets_folder() -> Path:
    """Return the folder of the user's presets, which may not exist yet.

    It is `KORNIA_DITF_PRESETS` where that environment variable is set, and otherwise in the user's
    data folder: unlike a cache, it is not to be deleted.
    """
    from platformdirs import user_data_path

    found = user_folder("KORNIA_DITF_PRESETS", lambda: user_data_path("kornia-ditf") / "presets")
    return cache_folder() / "presets" if found is None else found


def stored_presets() -> Iterator[Stored]:
    """Iterate over the presets, the user's own first; unreadable ones state the reason."""
    for folder, origin in ((presets_folder(), YOURS), (SHIPPED, "calibrated")):
        for path in sorted(folder.glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                yield Stored(path, origin, read_preset(path))
            except PresetError as error:
                yield Stored(path, origin, None, str(error))


def find_stored(name: str) -> Stored:
    """Find a preset by its file's name without the suffix.

    Raises:
        PresetError: there is none, or it cannot be read.
    """
    every = list(stored_presets())
    found = next((each for each in every if each.name == name.removesuffix(".json")), None)
    if found is None:
        raise PresetError(no_such("preset", name, (each.name for each in every)))
    return found


def add_preset(preset: Preset) -> Path:
    """Store a preset, which is used for its weights from now on, replacing an earlier one.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = presets_folder()
    make_folder(folder)
    weights = preset.weights
    label = preset.backbone or weights.identity.partition("@")[0]
    key = (weights.fingerprint or weights.identity.rpartition("@")[2])[:8]
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{label}-{key}").strip("-.")
    path = folder / f"{slug}.json"
    preset.save(path)
    return path


def with_preset(
    spec: BackboneSpec, source: object = None, preset: object = None, **hub: Any
) -> BackboneSpec:
    """Return a backbone's spec with the numbers of the calibrated preset for its weights.

    Args:
        spec: of the backbone.
        source: where its weights are, if not in its own place. A model in memory, whose weights
            have no name, takes no preset by itself.
        preset: a preset's file; `none` for the numbers that come with the backbone; None for the
            preset that is kept for these weights, if there is one.
        hub: options of `Checkpoint`.

    Raises:
        PresetError: the file cannot be read, or holds for other weights.
    """
    if preset == NO_PRESET:
        return spec
    place = spec.repo if source is None else source
    if preset is None:
        for each in stored_presets():
            if each.preset is None:
                warnings.warn(
                    f"{each.problem}; it is not used, and `kornia-ditf presets remove {each.name}` "
                    "removes it",
                    PresetWarning,
                    stacklevel=3,
                )
            elif each.preset.concerns(spec) and _holds(each.preset, spec, place, hub):
                return each.preset.apply(spec, each.origin)
        return spec
    if not isinstance(preset, str | Path):
        raise PresetError(f"preset must be a file, or {NO_PRESET!r}, got {preset!r}")
    given = read_preset(preset)
    if not _holds(given, spec, place, hub):
        raise PresetError(
            f"{preset} holds for other weights: {given.weights.identity}, "
            f"{given.weights.blocks} blocks of {given.weights.width} channels, and not for "
            f"{spec.name}{f' from {place}' if isinstance(place, str | Path) else ' in memory'}; "
            "`kornia-ditf calibrate` makes one"
        )
    return given.apply(spec, f"calibrated ({Path(preset).name})")


def _holds(preset: Preset, spec: BackboneSpec, place: object, hub: dict[str, Any]) -> bool:
    weights = preset.weights
    if (spec.blocks, spec.width) != (weights.blocks, weights.width):
        return False
    if not isinstance(place, str | Path):
        return False
    try:
        checkpoint = Checkpoint(place, **hub)
        if checkpoint.identity == weights.identity:
            return True
        return weights.fingerprint is not None and fingerprint(checkpoint) == weights.fingerprint
    except (CheckpointError, HubError):
        return False  # loading says what is wrong with the weights
