"""`kornia-ditf backbones`: list what is installed, or show what one takes to load."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kornia_ditf.cli import options, output
from kornia_ditf.utils.text import byte_size

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.dense import DescriptorSpec
    from kornia_ditf.loading.plan import LoadingPlan


def list_installed(as_json: options.Json = False) -> None:
    """List the installed backbones and other dense descriptors, without loading a model library.

    The numbers in the last column refer to the lines below the table, which state the source of
    each preset.
    """
    from kornia_ditf.calibration.store import with_preset
    from kornia_ditf.dense import DescriptorSpec
    from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, list_backbones, list_descriptors
    from kornia_ditf.utils.provenance import installed_instead

    backbones = [with_preset(spec) for spec in list_backbones().values()]
    others = [each for each in list_descriptors().values() if isinstance(each, DescriptorSpec)]
    sources = list(dict.fromkeys([*(b.source for b in backbones), *(o.source for o in others)]))
    rows = [
        {
            "name": spec.name + ("*" if spec.name == DEFAULT_BACKBONE else ""),
            "blocks": str(spec.blocks),
            "width": str(spec.width),
            "block": str(spec.block),
            "timestep": f"{spec.timestep:g}",
            "side": str(spec.long_side),
            "draws": str(spec.ensemble),
            "massive": _channels(spec),
            "licence": spec.license,
            "numbers": f"needs {spec.needs}"
            if installed_instead(spec.needs)
            else ("" if spec.calibrated else "un")
            + f"calibrated [{1 + sources.index(spec.source)}]",
        }
        for spec in backbones
    ]
    rows_of_others = [
        {
            "not a DiT": spec.name,
            "width": str(spec.width),
            "pixels per token": str(spec.pixels_per_token),
            "licence": spec.license,
            "numbers": f"[{1 + sources.index(spec.source)}]",
        }
        for spec in others
    ]
    text: list[output.Paragraph] = [
        output.Table(
            rows,
            right=("blocks", "width", "block", "timestep", "side", "draws"),
            optional=("licence", "width", "draws", "side"),
        )
    ]
    if others:
        right = ("width", "pixels per token")
        text.append(output.Table(rows_of_others, right=right, optional=("licence",)))
    text += ["", "*   embedded; used when no backbone is named"]
    text += [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    document = {
        "backbones": [_as_values(spec) for spec in backbones],
        "descriptors": [_as_values(spec) for spec in others],
    }
    output.show(document, *text, as_json=as_json)


app = options.listing("List the installed backbones and descriptors, or show one.", list_installed)


@app.command("show")
@options.describing("source", "block", "preset", "long_side")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER|FILE", show_default=False)],
    chosen: options.Chosen,
    config: str | None = None,
    dtype: str = "bfloat16",
    memory: str | None = None,
    as_json: options.Json = False,
) -> None:
    """Show a backbone's preset, its download and memory, and which options fit this machine.

    Only configuration files are read. If the hub cannot be reached, memory is computed from the
    published architecture, where known, and the output says so.

    Options:
        --config FOLDER|REPO: For a single file of weights: where its configurations, VAE and text
            encoders are.
        --dtype NAME: dtype of the transformer: float32, bfloat16 or float16.
        --memory SIZE: Show which options fit a card with this much memory, such as 16GB. [default:
            the GPU of this machine, or else its main memory]
    """
    from kornia_ditf.calibration.store import with_preset
    from kornia_ditf.dense import DescriptorSpec
    from kornia_ditf.errors import HubUnreachableError
    from kornia_ditf.registry.lookup import DEFAULT_BACKBONE, find_descriptor
    from kornia_ditf.utils.checks import check_integer, read_dtype

    card, size = _memory(memory)
    given = {} if config is None else {"config": config}
    spec = find_descriptor(name, **given if chosen.source is None else {})
    if isinstance(spec, DescriptorSpec):
        facts = [
            ("descriptor", spec.name),
            ("weights", spec.repo or "see its plugin"),
            ("licence", spec.license),
            ("width", f"{spec.width} channels"),
            ("token", f"{spec.pixels_per_token} x {spec.pixels_per_token} px"),
            ("source", spec.source),
        ]
        output.show(_as_values(spec), facts, as_json=as_json)
        return
    spec = with_preset(spec, chosen.source, chosen.preset)
    place = chosen.source or spec.repo
    block = spec.block if chosen.block is None else chosen.block
    check_integer("--block", block, 0, spec.blocks - 1)
    plan, unknown = None, ""
    try:
        plan = chosen.plan(spec, block, dtype, **given)
    except HubUnreachableError as error:
        unknown = str(error)
    embedded = spec.name == DEFAULT_BACKBONE and not chosen.source
    draws = "1 noise draw" if spec.ensemble == 1 else f"{spec.ensemble} noise draws"
    facts = [
        ("backbone", spec.name),
        ("weights", place + (" (comes with the package)" if embedded else "")),
        ("licence", spec.license),
        ("blocks", f"{spec.blocks} of {spec.width} channels"),
        ("token", f"{spec.pixels_per_token} x {spec.pixels_per_token} px"),
        ("block", f"{spec.block} (of 0 to {spec.blocks - 1})"),
        ("timestep", f"{spec.timestep:g} (0 is clean, 1000 is pure noise)"),
        ("long side", f"{spec.long_side} px"),
        ("ensemble", draws),
        ("treatment", spec.treatment),
        ("discarded", _channels(spec)),
        ("prompt", repr(spec.prompt) if spec.prompt else "none"),
        ("source of the preset", spec.source),
    ]
    if unknown:
        facts.append(("memory", f"not known: {unknown}"))
    text: list[output.Paragraph] = [facts]
    values, fitting = None, list[dict[str, Any]]()
    if plan is not None:
        facts += _plan_facts(plan, block, dtype)
        values = {**asdict(plan), "held": plan.held}
        side = chosen.fitting(spec)[0] or spec.long_side
        tokens = (side // spec.pixels_per_token) ** 2
        for option, held in plan.by_option.items():
            if "offload" in option and "main" in card:
                continue  # it saves none of the memory that it moves the weights to
            own = read_dtype("float32" if "float32" in option else dtype)
            used = held + plan.working(tokens, side * side, spec.width, own)
            fitting.append(
                {"option": option, "held": held, "describing": used, "fits": used < size}
            )
    if fitting:
        rows = [
            {
                "option": row["option"],
                "held": byte_size(row["held"]),
                "with an image": byte_size(row["describing"]),
                "fits": "yes" if row["fits"] else "no",
            }
            for row in fitting
        ]
        image = f"one noisy image of {side} x {side} px"
        text += [
            "",
            f"what fits {card}, {byte_size(size)}, with {image} (an estimate):",
            output.Table(rows, right=("held", "with an image")),
            "",
            "options of create_descriptor; at the command line -o quantize=int8, -o offload=layers",
        ]
    document = {
        **_as_values(spec),
        "weights": place,
        "plan": {"block": block, "dtype": dtype, "bytes": values, "options": fitting},
        "memory": {"of": card, "bytes": size},
    }
    output.show(document, *text, as_json=as_json)


def _memory(text: str | None) -> tuple[str, int]:
    """Read the option --memory; not given is the GPU's memory, or else the machine's."""
    import re

    import torch

    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.utils.provenance import memory_bytes

    if text is not None:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GM]?)(i?)B?", text.strip(), re.IGNORECASE)
        if found is None or not float(found[1]):
            raise InvalidArgumentError(f"--memory must be a size such as 16GB, got {text!r}")
        unit = (1024 if found[3] else 1000) ** (2 if found[2].upper() == "M" else 3)
        return "a card", int(float(found[1]) * unit)
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties("cuda")
        return card.name, card.total_memory
    if not memory_bytes():
        raise InvalidArgumentError("give --memory, such as --memory 16GB")
    return "the main memory", memory_bytes()


def _plan_facts(plan: LoadingPlan, block: int, dtype: str) -> list[tuple[str, str]]:
    downloads = prompts = "not known, as the hub cannot be reached"
    if plan.download is not None:
        count = len(plan.download)
        files = f" in {count} file{'s' if count > 1 else ''}"
        downloads = f"{byte_size(sum(plan.download.values()))}{files}" if count else "nothing"
    if plan.prompt_download is not None:
        size = plan.prompt_download
        prompts = f"{byte_size(size)}, held only while one is embedded" if size else "nothing"
    held = (
        f"{byte_size(plan.held)} up to block {block}: transformer "
        f"{byte_size(plan.transformer_held)} of {byte_size(plan.transformer_whole)} in {dtype}"
    )
    if plan.vae_whole:
        held += (
            f", image encoder {byte_size(plan.vae_held)} of {byte_size(plan.vae_whole)} in float32"
        )
    return [
        ("download", downloads),
        ("for prompts", prompts),
        ("held", held),
        ("computed from", plan.source),
    ]


def _channels(spec: BackboneSpec) -> str:
    if spec.massive_channels is None:
        return "when needed"
    return " ".join(map(str, spec.massive_channels)) or "none"


def _as_values(spec: BackboneSpec | DescriptorSpec) -> dict[str, Any]:
    left_out = ("load", "plan", "in_memory", "architecture", "base", "options")
    return {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in left_out}
