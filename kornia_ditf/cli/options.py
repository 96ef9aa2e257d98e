"""The options that commands share, and how they become a descriptor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from kornia_ditf.cli.values import read_blocks, read_numbers, read_others

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
    from kornia_ditf.loading.plan import LoadingPlan

_OPTION = re.compile(r"(?P<names>--[^\s:,]+(?:, -[^\s:,]+)*)(?: (?P<value>[^:]+))?: (?P<text>.+)")


def read_path(text: str | Path) -> Path:
    """Read a path; a shell leaves the `~` of `--out=~/folder` alone, so it is expanded here.

    Raises:
        typer.BadParameter: it is a URL, or empty, as an unset variable of the shell leaves it.
    """
    if re.match(r"[\w+.-]{2,}://", str(text)):
        raise typer.BadParameter(
            f"{text} is a URL, expected a path; download it, or mount the bucket (gcsfuse, s3fs, "
            "rclone mount), and name the file or folder"
        )
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


def option(value: str, text: str, *names: str, **more: Any) -> Any:
    """Declare an option.

    Args:
        value: what it takes, such as `N` or `FILE`.
        text: the help.
        names: what it is called, if not as its parameter.
        more: of `typer.Option`.
    """
    return typer.Option(*names, metavar=value, help=text, **more)


def path_option(value: str, text: str, *names: str) -> Any:
    """Declare an option that takes a path; see `option`."""
    return option(value, text, *names, parser=read_path)


def path_argument(value: str) -> Any:
    """Declare an argument that is a path."""
    return typer.Argument(parser=read_path, metavar=value, show_default=False)


Images = Annotated[list[Path], path_argument("IMAGE...")]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON document to standard output instead of text.")
]
RayAddress = Annotated[
    str | None,
    option(
        "ADDRESS",
        "Address of the Ray cluster: auto on one of its nodes, or HOST:6379.  [default: start "
        "one here]",
        "--ray-address",
        "--address",
    ),
]


def listing(text: str, list_them: Callable[[bool], None]) -> typer.Typer:
    """Create a group of commands whose `list` is the default."""
    app = typer.Typer(help=text, rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def list_by_default(context: typer.Context, as_json: Json = False) -> None:
        if context.invoked_subcommand is None:
            list_them(as_json)

    app.command("list")(list_them)
    return app


_SHARED: Mapping[str, Any] = {
    "backbone": str | None,
    "source": str | None,
    "block": int | None,
    "blocks": str | None,
    "timestep": float | None,
    "timesteps": str | None,
    "facet": str | None,
    "treatment": str | None,
    "long_side": int | None,
    "tiles": Annotated[int | None, {"min": 1}],
    "upsample": str | None,
    "ensemble": int | None,
    "rows": int | None,
    "prompt": str | None,
    "seed": int | None,
    "dtype": str | None,
    "device": str | None,
    "option": list[str] | None,
    "preset": str | None,
    "projection": str | None,
}
"""Options that say how images are described, by their type, in the order of a command's help."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options of a command that say how images are described; see `describing`.

    Args:
        values: of the options, by parameter; None was not given.

    Options:
        --backbone, --descriptor, -b NAME|FOLDER: An installed backbone or descriptor (`kornia-ditf
            backbones` lists them), a folder in the diffusers layout, or NAME+NAME to fuse two.
            [default: the embedded nano]
        --source FOLDER|REPO: Load the weights from here instead of the backbone's own repository.
        --block K: Use the input of this block, counted from 0. [default: preset]
        --blocks LIST: Concatenate the descriptors of these blocks, such as 3,5 or 3-5, each of unit
            length.
        --timestep T: Noise level, from 0 (a clean image) to 1000 (pure noise). [default: preset]
        --timesteps LIST: Average the descriptors of these timesteps, such as 20,40,60.
        --facet NAME: What to capture at the block: its input, or the query, key or value of its
            attention. [default: input]
        --treatment NAME: raw, adaln, adaln+discard, discard+layernorm, or steps in order:
            'adaln+discard > debias(0.99)'. [default: adaln+discard]
        --long-side PIXELS: Resize images to this longest side; 0 keeps their size. [default:
            preset]
        --tiles N: Describe large images in overlapping tiles, at N times the longest side.
        --upsample NAME(N): Upsample to a grid N times finer, or with 'NAME(Npx)' to tokens N pixels
            apart: bilinear, joint_bilateral (follows the image's edges), anyup, featup or a
            plugin's.
        --ensemble E: Average this many noise draws. [default: preset]
        --rows N: Pass at most N noisy images through the model together. [default: what fits]
        --prompt TEXT: Prompt for the model. [default: preset]
        --seed N: Seed of the noise. [default: 0]
        --dtype NAME: float32, bfloat16 or float16. [default: float32 on a CPU, else bfloat16]
        --device NAME: cpu, cuda, mps ... [default: cpu]
        --option, -o KEY=VALUE: Any other option of the backbone or descriptor, such as guidance=5
            or layer=9; may be repeated.
        --preset FILE: Use this calibrated preset; 'none' uses the values that come with the
            backbone. [default: the preset stored for these weights]
        --projection FILE: Reduce the channels by this projection; `kornia-ditf projection learn`
            writes one.
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
        return {
            f"--{name.replace('_', '-')}": value
            for name, value in self.values.items()
            if value is not None
        }

    @property
    def others(self) -> dict[str, Any]:
        """What --option gave, by key."""
        return read_others(self.option)

    def spec(self) -> BackboneSpec | DescriptorSpec:
        """Find what --backbone names, with the numbers of its preset; none is the embedded default.

        Raises:
            UnknownBackboneError: neither a name nor a folder.
            CheckpointError: a folder holds no model of a known family.
            HubError: the hub does not give the configurations.
        """
        from kornia_ditf.backbones.spec import BackboneSpec
        from kornia_ditf.calibration.store import with_preset
        from kornia_ditf.loading.checkpoint import hub_options
        from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, find_descriptor

        hub = hub_options(self.others)
        name = DEFAULT_BACKBONE if self.backbone is None else self.backbone
        spec = find_descriptor(name, **hub)
        if isinstance(spec, BackboneSpec):
            return with_preset(spec, self.source, self.preset or self.others.get("preset"), **hub)
        return spec

    def fitting(self, spec: BackboneSpec | DescriptorSpec) -> tuple[int | None, int]:
        """Return the long side, None for an image's own size, and the pixels of a token's side."""
        preset: int | None = getattr(spec, "long_side", None)
        side = preset if self.long_side is None else self.long_side or None
        return side, spec.pixels_per_token

    def plan(self, spec: BackboneSpec, block: int, dtype: str, **more: Any) -> LoadingPlan | None:
        """Estimate the cost of loading up to a block; see `loading_plan`."""
        from kornia_ditf.registry.families import loading_plan
        from kornia_ditf.utils.checks import read_dtype

        return loading_plan(spec, self.source, block=block, dtype=read_dtype(dtype), **more)

    def read(self, spec: BackboneSpec | DescriptorSpec | None = None) -> dict[str, Any]:
        """Return the options of `create_descriptor`, or of a matcher.

        Raises:
            InvalidArgumentError: a value is wrong, or the device cannot be used.
        """
        from kornia_ditf.utils.checks import read_device

        apart = ("backbone", "source", "option")
        given = {n: v for n, v in self.values.items() if n not in apart and v is not None}
        if "rows" in given:
            given["rows_per_forward"] = given.pop("rows")
        if "blocks" in given:
            given["blocks"] = tuple(read_blocks(given["blocks"], getattr(spec, "blocks", 0)))
        if "timesteps" in given:
            given["timesteps"] = read_numbers("--timesteps", given["timesteps"], float)
        if "long_side" in given:
            given["long_side"] = given["long_side"] or None  # 0 keeps an image's size
        given |= self.others
        if given.get("device") is not None:
            read_device(given["device"])
        return given

    def load(self, spec: BackboneSpec | DescriptorSpec) -> DenseDescriptor:
        """Create the descriptor; one that is not a DiT receives its prompt with each image.

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


def documented(command: Callable[..., None]) -> Callable[..., None]:
    """Declare a command's options as its docstring has them, under `Options:`.

    `--json-file, --out FILE.json: Write the result here.` are an option's names, the first of them
    its parameter's, what it takes and its help. Whatever else `typer.Option` is to be given stands
    in the parameter's annotation: `Annotated[int, {"min": 1}]`.
    """
    return _declare(command, {})


def _declare(
    command: Callable[..., None], shared: Mapping[str, Mapping[str, Any]]
) -> Callable[..., None]:
    help_text, own = _read_options(command.__doc__)
    options = {**shared, **own}
    signature = inspect.signature(command, eval_str=True)
    if unknown := own.keys() - signature.parameters.keys():
        raise TypeError(f"{command.__name__} has no parameters {', '.join(unknown)}")
    parameters = []
    for parameter in signature.parameters.values():
        if (described := options.get(parameter.name)) is not None:
            kind, more = parameter.annotation, {}
            if get_origin(kind) is Annotated:
                kind, more = get_args(kind)
            if Path in (kind, *get_args(kind)):
                more = {"parser": read_path, **more}
            how = option(described["value"], described["text"], *described["names"], **more)
            parameter = parameter.replace(annotation=Annotated[kind, how])
        parameters.append(parameter)
    declared: Any = command
    declared.__signature__ = signature.replace(parameters=parameters)
    declared.__doc__ = help_text
    return command


def _read_options(docstring: str | None) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """Split a docstring into what precedes its options, and the options by their parameters."""
    text, _, section = inspect.cleandoc(docstring or "").partition("\n\nOptions:\n")
    found: dict[str, Mapping[str, Any]] = {}
    for entry in re.split(r"\n(?= {4}--)", section) if section else ():
        read = _OPTION.fullmatch(" ".join(entry.split()))
        if read is None:
            raise TypeError(f"expected '--name VALUE: help', got {entry!r}")
        names = read["names"].split(", ")
        said = read["text"].replace(" [default:", "  [default:")
        parameter = names[0].partition("/")[0].removeprefix("--").replace("-", "_")
        found[parameter] = {"names": names, "value": read["value"], "text": said}
    return text, found


def describing(
    *only: str, without: Sequence[str] = (), **changed: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of descriptors to a command, as its parameter `chosen`.

    The command's own options are declared as by `documented`; of these it may describe others.

    Args:
        only: the options that it has; all of them where there are none.
        without: options that it does not have.
        changed: the types of those that have another one.
    """
    kinds, shared = {**_SHARED, **changed}, _read_options(Chosen.__doc__)[1]
    names = [n for n in _SHARED if n not in without and (not only or n in only)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:
            chosen = Chosen({name: arguments.pop(name) for name in names})
            command(**arguments, chosen=chosen)

        signature = inspect.signature(command, eval_str=True)
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, keyword, default=None, annotation=kinds[name]) for name in names
        ]
        parameters: list[inspect.Parameter] = []
        for own in signature.parameters.values():
            parameters += added if own.name == "chosen" else [own.replace(kind=keyword)]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return _declare(run, {name: shared[name] for name in names})

    return decorate
