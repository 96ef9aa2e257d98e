"""The options that commands share, and how they become a descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.spec import BackboneSpec

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False)]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "-b",
        metavar="NAME|FOLDER",
        help="An installed backbone (`kornia-ditf backbones` lists them), or a folder in the "
        "diffusers layout.  [default: the embedded nano]",
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
        help="raw, adaln, adaln+discard or discard+layernorm.  [default: adaln+discard]",
    ),
]
LongSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Scale images to this longest side; 0 keeps their size.  [default: preset]",
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
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to standard output, no text.")
]


def load_descriptor(
    backbone: str | None,
    source: str | None,
    given: Mapping[str, Any],
    *,
    reach: int | None = None,
) -> DiTF:
    """Make a descriptor from options.

    Args:
        backbone: name or folder; None is the embedded default.
        source: where the weights are, if not in the backbone's own place.
        given: options of `create_ditf`; those that are None were not given.
        reach: load at least up to this block, beyond the configured one.

    Raises:
        InvalidArgumentError: a value is wrong, or the device cannot be used.
        UnknownBackboneError: neither a name nor a folder.
        CheckpointError: the weights are incomplete or damaged.
        HubError: the weights cannot be had.
    """
    from dataclasses import fields

    from kornia_ditf.descriptor import DiTF, DiTFConfig
    from kornia_ditf.registry import DEFAULT_BACKBONE, create_ditf, find_backbone

    options = {name: value for name, value in given.items() if value is not None}
    if "long_side" in options:
        options["long_side"] = options["long_side"] or None  # 0 keeps an image's size
    if "device" in options:
        _check_device(options["device"])
    name = backbone or DEFAULT_BACKBONE
    if reach is None:
        return create_ditf(name, source=source, **options)
    names = {field.name for field in fields(DiTFConfig)}
    config = DiTFConfig.from_spec(
        find_backbone(name), **{key: value for key, value in options.items() if key in names}
    )
    options["block"] = max(reach, config.block)
    return DiTF(create_ditf(name, source=source, **options).backbone, config)


def side_in_pixels(long_side: int | None, spec: BackboneSpec) -> int | None:
    """Read the option --long-side: not given is the preset's, and 0 keeps an image's size."""
    return spec.long_side if long_side is None else long_side or None


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
