"""The options that commands share, and how they become a descriptor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
    from kornia_ditf.descriptor import DiTF


def read_path(text: str | Path) -> Path:
    """Read a path; a shell leaves the `~` of `--out=~/folder` alone, so it is expanded here.

    Raises:
        typer.BadParameter: it is empty, as an unset variable of the shell leaves it.
    """
    if not str(text).strip():
        raise typer.BadParameter("the name is empty; name a file or a folder, or leave it out")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or no home folder
        return Path(text)


Images = Annotated[
    list[Path], typer.Argument(parser=read_path, metavar="IMAGE...", show_default=False)
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "--descriptor",
        "-b",
        metavar="NAME|FOLDER",
        help="An installed backbone or descriptor (`kornia-ditf backbones` lists them), a folder "
        "in the diffusers layout, or NAME+NAME to fuse two.  [default: the embedded nano]",
    ),
]
Others = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="Any other option of the backbone or descriptor, such as guidance=5 or layer=9; may "
        "be repeated.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|REPO", help="Take the weights from here, not from the backbone's own place."
    ),
]
Block = Annotated[
    int | None,
    typer.Option(metavar="K", help="Take this block's input, counted from 0.  [default: preset]"),
]
Timestep = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Noise, from 0 (a clean image) to 1000 (pure noise).  [default: preset]",
    ),
]
TreatmentName = Annotated[
    str | None,
    typer.Option(
        "--treatment",
        metavar="NAME",
        help="raw, adaln, adaln+discard, discard+layernorm, or steps in order: "
        "'adaln+discard > debias(0.99)'.  [default: adaln+discard]",
    ),
]
LongSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Scale images to this longest side; 0 keeps their size.  [default: preset]",
    ),
]
Tiles = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Describe large images in overlapping tiles, at N times the longest side.",
    ),
]
Ensemble = Annotated[
    int | None, typer.Option(metavar="E", help="Average this many noise draws.  [default: preset]")
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows",
        metavar="N",
        help="Pass at most so many noisy images through the model together.  [default: what fits]",
    ),
]
Prompt = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Tell the model what it sees.  [default: preset]")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of the noise draws.  [default: 0]")]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="float32, bfloat16 or float16.  [default: float32 on a CPU, else bfloat16]",
    ),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, mps ... [default: cpu]")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="FILE",
        help="Take the numbers of this calibrated preset, or those that come with the backbone: "
        "none.  [default: the preset kept for these weights]",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        "--address",
        metavar="ADDRESS",
        help="Of the Ray cluster, such as auto or ray://host:10001.  [default: start one here]",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to standard output, no text.")
]


def load_descriptor(
    spec: BackboneSpec | DescriptorSpec, source: str | None, given: Mapping[str, Any]
) -> DenseDescriptor:
    """Make a descriptor from options.

    Args:
        spec: which; see `find_spec`.
        source: where the weights are, if not in the backbone's own place.
        given: options of `create_descriptor`; those that are None were not given. One that is no
            DiT is told its prompt with each image.

    Raises:
        InvalidArgumentError: a value is wrong, or the device cannot be used.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be had.
    """
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.registry.lookup import create_descriptor

    options = _read(given)
    if not isinstance(spec, BackboneSpec):
        options.pop("prompt", None)
    return create_descriptor(spec.name, source=source, **options)


def load_ditf(
    spec: BackboneSpec, source: str | None, given: Mapping[str, Any], *, reach: int
) -> DiTF:
    """Make a descriptor on a backbone that is loaded at least up to a block.

    Args:
        spec: which backbone.
        source: as for `load_descriptor`, and its errors.
        given: likewise.
        reach: the block.
    """
    from dataclasses import fields

    from kornia_ditf.config import DiTFConfig
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.registry.lookup import create_ditf
    from kornia_ditf.registry.treatments import read_config

    options = _read(given)
    names = {field.name for field in fields(DiTFConfig)}
    config = read_config(spec, {key: value for key, value in options.items() if key in names})
    options["block"] = max(reach, *config.all_blocks)
    return DiTF(create_ditf(spec.name, source=source, **options).backbone, config)


def find_spec(
    name: str | None,
    others: Sequence[str] | None = None,
    source: str | None = None,
    preset: str | None = None,
) -> BackboneSpec | DescriptorSpec:
    """Find what the option --backbone names; None is the embedded default.

    Args:
        name: of the backbone or descriptor.
        others: the option --option, which may say which revision of a model is meant.
        source: the option --source, where the weights are.
        preset: the option --preset; see `with_preset`.

    Raises:
        UnknownBackboneError: neither a name nor a folder.
        CheckpointError: a folder holds no model of a known family.
        HubError: the hub does not give the configurations.
    """
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.calibration.store import with_preset
    from kornia_ditf.loading.checkpoint import hub_options
    from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, find_descriptor

    known = read_others(others)
    hub = hub_options(known)
    spec = find_descriptor(DEFAULT_BACKBONE if name is None else name, **hub)
    if isinstance(spec, BackboneSpec):
        return with_preset(spec, source, preset or known.get("preset"), **hub)
    return spec


def side_in_pixels(long_side: int | None, spec: BackboneSpec | DescriptorSpec) -> int | None:
    """Read the option --long-side: not given is the preset's, and 0 keeps an image's size."""
    preset: int | None = getattr(spec, "long_side", None)
    return preset if long_side is None else long_side or None


def read_others(others: Sequence[str] | None) -> dict[str, Any]:
    """Read the option --option: KEY=VALUE, where the value is JSON or else a text.

    Raises:
        InvalidArgumentError: there is no `=`.
    """
    from kornia_ditf.errors import InvalidArgumentError

    found: dict[str, Any] = {}
    for text in others or ():
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidArgumentError(f"--option must be KEY=VALUE, got {text!r}")
        if key in ("name", "source"):
            given = "--source" if key == "source" else "--backbone"
            raise InvalidArgumentError(f"--option {key}= is no option of a backbone; type {given}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in given.items() if value is not None}
    if "long_side" in options:
        options["long_side"] = options["long_side"] or None  # 0 keeps an image's size
    if "device" in options:
        _check_device(options["device"])
    return options


def _check_device(name: str) -> None:
    import torch

    from kornia_ditf.errors import InvalidArgumentError

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InvalidArgumentError(
            f"device {name!r} cannot be used here ({reason}); leave out --device to use the CPU"
        ) from error
