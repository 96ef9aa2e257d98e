"""`kornia-ditf presets`: list, show, add and remove calibrated presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from kornia_ditf.calibration.preset import Preset

_Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


def list_presets(as_json: options.Json = False) -> None:
    """List the calibrated presets: yours first, then those that come with the package."""
    from kornia_ditf.calibration.store import presets_folder, stored_presets

    every = list(stored_presets())
    presets = [
        {
            "name": each.name,
            "origin": each.origin,
            "file": str(each.path),
            "problem": each.problem or None,
            "measured": None if each.preset is None else each.preset.describe(),
        }
        for each in every
    ]
    document = {"folder": str(presets_folder()), "presets": presets}
    how = "`kornia-ditf calibrate BACKBONE --images FOLDER` makes one"
    rows = [
        {
            "name": each.name,
            "whose": each.origin,
            "measured": each.problem if each.preset is None else each.preset.describe(),
        }
        for each in every
    ]
    nothing = f"There are no calibrated presets yet; {how}."
    output.show(document, output.Table(rows) if rows else nothing, as_json=as_json)


app = options.listing("List, show, add and remove calibrated presets.", list_presets)


@app.command("show")
def show(name: _Name, as_json: options.Json = False) -> None:
    """Show a preset, by its name in the list or by its file; --json prints the file to share."""
    import json

    from kornia_ditf.calibration.preset import read_preset
    from kornia_ditf.calibration.store import find_stored

    path = Path(name).expanduser()
    preset = read_preset(path if path.is_file() else find_stored(name).path)
    output.show(json.loads(preset.to_json()), calibrated_facts(preset), as_json=as_json)


def calibrated_facts(preset: Preset) -> list[tuple[str, str]]:
    """Return what a preset is for, its numbers, and how they were measured."""
    weights, settings, measured = preset.weights, preset.settings, preset.measured
    channels = settings.massive_channels
    discarded = "found in each image" if channels is None else ", ".join(map(str, channels))
    return [
        ("backbone", preset.backbone or "any with these weights"),
        ("weights", weights.identity),
        ("fingerprint", weights.fingerprint or "not known"),
        ("block", f"{settings.block} (of 0 to {weights.blocks - 1})"),
        ("timestep", f"{settings.timestep:g}"),
        ("long side", f"{settings.long_side} px"),
        ("noise draws", str(settings.ensemble)),
        ("treatment", settings.treatment),
        ("discarded", discarded or "none"),
        ("criterion", measured.criterion),
        ("measured", preset.describe()),
        ("computed in", measured.computed),
    ]


@app.command("add")
def add(
    file: Annotated[Path, options.path_argument("FILE")],
    as_json: options.Json = False,
) -> None:
    """Store a preset from a file; it is used for its weights from now on."""
    from kornia_ditf.calibration.preset import read_preset
    from kornia_ditf.calibration.store import add_preset
    from kornia_ditf.errors import InvalidArgumentError, PresetError
    from kornia_ditf.registry.treatments import find_treatment

    preset = read_preset(file)
    try:
        find_treatment(preset.settings.treatment)
    except InvalidArgumentError as error:
        raise PresetError(f"{file}: {error}; a plugin may be missing") from error
    path = add_preset(preset)
    facts = [("kept", str(path)), ("measured", preset.describe())]
    output.show({"kept": str(path)}, facts, as_json=as_json)


@app.command("remove")
def remove(name: _Name, as_json: options.Json = False) -> None:
    """Remove one of your presets, by its name in the list."""
    from kornia_ditf.calibration.store import YOURS, find_stored
    from kornia_ditf.errors import InvalidArgumentError, OutputError
    from kornia_ditf.utils.files import os_errors_as

    found = find_stored(name)
    if found.origin != YOURS:
        raise InvalidArgumentError(
            f"{name} comes with the package; `--preset none` leaves it out of a command"
        )
    with os_errors_as(OutputError, f"cannot remove {found.path}"):
        found.path.unlink()
    removed = str(found.path)
    output.show({"removed": removed}, [("removed", removed)], as_json=as_json)
