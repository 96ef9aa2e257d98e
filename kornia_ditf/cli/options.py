"""The options that commands share, and how they become a descriptor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli.values import read_blocks, read_numbers, read_others

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


def read_seconds(text: str) -> float:
    """Read a time: seconds, or MINUTES:SECONDS, or HOURS:MINUTES:SECONDS.

    Raises:
        typer.BadParameter: it is none.

    Example:
        >>> read_seconds("1:30.5")
        90.5
    """
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise typer.BadParameter(f"expected seconds, or MM:SS or HH:MM:SS, got {text!r}")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


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
Blocks = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Join the descriptors of these blocks, such as 3,5 or 3-5, each of unit length.",
    ),
]
Timesteps = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Average the descriptors at these timesteps: 20,40,60."),
]
FacetName = Annotated[
    str | None,
    typer.Option(
        "--facet",
        metavar="NAME",
        help="What to take of the block: its input, or the query, key or value of its attention.  "
        "[default: input]",
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
Upsample = Annotated[
    str | None,
    typer.Option(
        "--upsample",
        metavar="NAME(N)",
        help="Give a grid N times finer, or tokens N pixels apart with 'NAME(Npx)': bilinear, "
        "joint_bilateral (follows the image's edges), anyup, featup or a plugin's.",
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
ProjectionFile = Annotated[
    str | None,
    typer.Option(
        "--projection",
        metavar="FILE",
        help="Reduce the channels by this projection; `kornia-ditf projection learn` writes one.",
    ),
]
_SHARED: Mapping[str, Any] = {
    "backbone": Backbone,
    "source": Source,
    "block": Block,
    "blocks": Blocks,
    "timestep": Timestep,
    "timesteps": Timesteps,
    "facet": FacetName,
    "treatment": TreatmentName,
    "long_side": LongSide,
    "tiles": Tiles,
    "upsample": Upsample,
    "ensemble": Ensemble,
    "rows": Rows,
    "prompt": Prompt,
    "seed": Seed,
    "dtype": Dtype,
    "device": Device,
    "others": Others,
    "preset": Preset,
    "projection": ProjectionFile,
}
"""Options of every command that describes images, in the order of its help."""

RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        "--address",
        metavar="ADDRESS",
        help="Of the Ray cluster: auto on one of its nodes, or HOST:6379.  "
        "[default: start one here]",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to standard output, no text.")
]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options of a command that say how images are described; see `describing`.

    Args:
        values: of the options, by parameter; None was not given.
    """

    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name not in _SHARED:
            raise AttributeError(name)
        return self.values.get(name)

    def but(self, **changes: Any) -> Chosen:
        """Return these options with others in place of some."""
        return Chosen({**self.values, **changes})

    @property
    def flags(self) -> dict[str, Any]:
        """What was given, by the option's name on the command line."""
        names = {"others": "option"}
        given = {name: value for name, value in self.values.items() if value is not None}
        return {f"--{names.get(n, n).replace('_', '-')}": value for n, value in given.items()}

    def spec(self) -> BackboneSpec | DescriptorSpec:
        """Find the backbone or descriptor, with the numbers of its preset; see `find_spec`."""
        return find_spec(self.backbone, self.others, self.source, self.preset)

    def read(self, spec: BackboneSpec | DescriptorSpec) -> dict[str, Any]:
        """Return the options of `create_descriptor`.

        Raises:
            InvalidArgumentError: a value is wrong, or the device cannot be used.
        """
        apart = ("backbone", "source", "others")
        given = {n: v for n, v in self.values.items() if n not in apart and v is not None}
        if "rows" in given:
            given["rows_per_forward"] = given.pop("rows")
        if "blocks" in given:
            given["blocks"] = tuple(read_blocks(given["blocks"], getattr(spec, "blocks", 0)))
        if "timesteps" in given:
            given["timesteps"] = read_numbers("--timesteps", given["timesteps"], float)
        if "long_side" in given:
            given["long_side"] = given["long_side"] or None  # 0 keeps an image's size
        given |= read_others(self.others)
        if given.get("device") is not None:
            _check_device(given["device"])
        return given

    def load(self, spec: BackboneSpec | DescriptorSpec) -> DenseDescriptor:
        """Make the descriptor; one that is no DiT is told its prompt with each image.

        Raises:
            InvalidArgumentError: a value is wrong, or the device cannot be used.
            CheckpointError: the weights are incomplete or damaged.
            HubError: the weights cannot be had.
        """
        from kornia_ditf.backbones.spec import BackboneSpec
        from kornia_ditf.registry.lookup import create_descriptor

        options = self.read(spec)
        if not isinstance(spec, BackboneSpec):
            options.pop("prompt", None)
        return create_descriptor(spec.name, source=self.source, **options)

    def load_ditf(self, spec: BackboneSpec, *, reach: int, **more: Any) -> DiTF:
        """Make a descriptor on a backbone that is loaded at least up to the block `reach`.

        Errors are those of `load`; `more` are options that come before the command's.
        """
        from kornia_ditf.config import DiTFConfig
        from kornia_ditf.descriptor import DiTF
        from kornia_ditf.registry.lookup import create_ditf
        from kornia_ditf.registry.treatments import read_config

        options = {**self.read(spec), **more}
        names = {field.name for field in fields(DiTFConfig)}
        config = read_config(spec, {key: value for key, value in options.items() if key in names})
        options["block"] = max(reach, *config.all_blocks)
        return DiTF(create_ditf(spec.name, source=self.source, **options).backbone, config)


def describing(
    *without: str, **changed: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that describe images, as its parameter `chosen`.

    Args:
        without: options that it does not have.
        changed: those that it declares otherwise, as `Annotated` types.
    """
    shared = {n: changed.get(n, kind) for n, kind in _SHARED.items() if n not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)

        @wraps(command)
        def run(**arguments: Any) -> None:
            chosen = Chosen({name: arguments.pop(name) for name in shared})
            command(**arguments, chosen=chosen)

        parameters: list[inspect.Parameter] = []
        for name, own in signature.parameters.items():
            keyword = inspect.Parameter.KEYWORD_ONLY
            if name != "chosen":
                parameters.append(own.replace(kind=keyword))
                continue
            parameters += [
                inspect.Parameter(each, keyword, default=None, annotation=kind)
                for each, kind in shared.items()
            ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


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
