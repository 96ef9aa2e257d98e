"""`kornia-ditf inspect`: massive channels by block, and what discarding them does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf.cli import options, values

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.viz.inspection import Inspection


@options.describing(without=("timesteps", "tiles", "upsample", "projection"))
def inspect(
    images: options.Images,
    chosen: options.Chosen,
    point: tuple[float, float] | None = None,
    top: int = 3,
    out: Path | None = None,
    pca: Path | None = None,
    keep: bool = False,
    as_json: options.Json = False,
) -> None:
    """Show the massive channels of a backbone, and what discarding them does.

    Magnitude is the mean of |x|; ratio, that of the magnitude to the median channel's; variation,
    the spread of |x| over tokens relative to its mean; share, the fraction of tokens in which the
    channel stands out. Gates are the channels found from the residual gates of earlier blocks,
    without an image, compared with those found in the images. Contrast is 1 minus the mean cosine
    between tokens: 0 if all tokens are alike.

    Options:
        --point X Y: Compare all tokens of the first image with this pixel. [default: its centre]
        --top N: List N channels per block.
        --out FOLDER: Write channels.png, similarity.png, inspection.json.
        --pca FILE.png: Draw the images, and below them the principal components of their
            descriptors as colours: of all tokens, and of the foreground.
        --keep: Store the channels found, so that every later command discards them.
        --block K: Compare the treatments at this block. [default: preset]
        --blocks LIST: Blocks to measure, such as 3,5 or 0-8, or all. [default: all]
    """
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.cli import output, progress, settings
    from kornia_ditf.cli.images import read_fitting
    from kornia_ditf.errors import InvalidArgumentError
    from kornia_ditf.utils.checks import check_integer
    from kornia_ditf.utils.files import make_folder
    from kornia_ditf.utils.picture import save_picture
    from kornia_ditf.viz.channels import draw_channels, draw_treatments
    from kornia_ditf.viz.inspection import inspect_channels
    from kornia_ditf.viz.pca import draw_pca_sheet

    check_integer("--top", top, 1)
    spec = chosen.spec()
    if not isinstance(spec, BackboneSpec):
        raise InvalidArgumentError(
            f"inspect needs a Diffusion Transformer, and {spec.name} is not one; choose a backbone"
        )
    numbers = values.read_blocks(chosen.blocks or "all", spec.blocks)
    pictures = [read_fitting(path, *chosen.fitting(spec)) for path in images]
    if out is not None:
        make_folder(out)
    output.check_output(pca, inputs=images)
    stages = progress.Stages()
    with stages.stage("load"):
        ditf = _load(chosen.but(blocks=None), spec, reach=max(numbers))
    if not ditf.config.single:
        raise InvalidArgumentError(
            "inspect measures one timestep, and its --blocks are measured separately, not "
            "joined; leave out --option timesteps= and blocks="
        )
    known = ditf.known_channels()
    origin = "found here" if known is None else settings.describe_origin(known)
    with stages.stage("inspect"):
        inspection = inspect_channels(ditf, pictures, blocks=numbers, point=point)
    document = {
        "versions": output.versions(),
        "images": [str(path) for path in images],
        "backbone": settings.as_values(chosen, spec, ditf),
        **_as_values(inspection, top),
    }
    written: list[Path] = []
    if out is not None:
        written = [out / name for name in ("channels.png", "similarity.png", "inspection.json")]
        with stages.stage("draw"):
            save_picture(written[0], draw_channels(inspection))
            save_picture(written[1], draw_treatments(inspection, pictures[0]))
            output.write_json(written[2], document)
    if pca is not None:
        with stages.stage("draw"):
            save_picture(pca, draw_pca_sheet(pictures, ditf.describe_together(pictures)))
        written.append(pca)
    if keep:
        ditf.calibrate(pictures)
    contrasts = ", ".join(f"{name} {value:.3f}" for name, value in inspection.contrast.items())
    facts = [
        ("discarded", settings.describe_channels_found(inspection.discarded, origin)),
        ("gates", _describe_gates(inspection, ditf.config.facet)),
        ("contrast", f"{contrasts} (block {inspection.block})"),
        ("seconds", stages.describe()),
    ]
    if keep:
        kept = settings.describe_channels_found(ditf.massive_channels(), "used from now on")
        facts.append(("kept", kept))
    pictures_at = ", ".join(str(path) for path in written) or "none; add --out FOLDER"
    rows = _table_rows(inspection, top)
    output.show(
        document,
        [
            *settings.preset_facts(chosen.backbone, spec, ditf),
            ("images", ", ".join(str(path) for path in images)),
        ],
        output.Table(rows, right=[*rows[0]][:-1]),
        [*facts, ("written", pictures_at)],
        as_json=as_json,
    )


def _load(chosen: options.Chosen, spec: BackboneSpec, reach: int) -> DiTF:
    """Create a descriptor on a backbone that is loaded at least up to the block `reach`."""
    from dataclasses import fields

    from kornia_ditf.config import DiTFConfig
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.registry.lookup import create_ditf
    from kornia_ditf.registry.treatments import read_config

    given = chosen.read(spec)
    names = {field.name for field in fields(DiTFConfig)}
    config = read_config(spec, {key: value for key, value in given.items() if key in names})
    given["block"] = max(reach, *config.all_blocks)
    return DiTF(create_ditf(spec.name, source=chosen.source, **given).backbone, config)


def _table_rows(inspection: Inspection, top: int) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for block, statistics in inspection.statistics.items():
        massive = set(statistics.massive())
        mark = "*" if block == inspection.block else ""
        for index, channel in enumerate(statistics.largest(top)):
            rows.append(
                {
                    "block": f"{mark}{block}" if index == 0 else "",
                    "massive": str(len(massive)) if index == 0 else "",
                    "channel": str(channel),
                    "magnitude": f"{statistics.magnitude[channel]:.3g}",
                    "ratio": f"{statistics.ratio[channel]:.1f}",
                    "variation": f"{statistics.token_variation[channel]:.2f}",
                    "share": f"{statistics.token_share[channel]:.0%}",
                    "": "massive" if channel in massive else "",
                }
            )
    return rows


def _as_values(inspection: Inspection, top: int) -> dict[str, Any]:
    blocks = {
        str(block): {
            "massive_channels": list(statistics.massive()),
            "largest": [
                {"channel": channel}
                | {
                    name: round(float(getattr(statistics, name)[channel]), 6)
                    for name in statistics.__slots__
                }
                for channel in statistics.largest(top)
            ],
        }
        for block, statistics in inspection.statistics.items()
    }
    return {
        "blocks": blocks,
        "compared": {
            "block": inspection.block,
            "discarded": list(inspection.discarded),
            "gates": _gates_as_values(inspection),
            "point": list(inspection.point),
            "contrast": {name: round(value, 6) for name, value in inspection.contrast.items()},
        },
    }


def _gates_as_values(inspection: Inspection) -> dict[str, list[int]] | None:
    if inspection.gates is None:
        return None
    gates, massive = set(inspection.gates), set(inspection.statistics[inspection.block].massive())
    return {
        "channels": sorted(gates),
        "shared": sorted(gates & massive),
        "only_gates": sorted(gates - massive),
        "only_images": sorted(massive - gates),
    }


def _describe_gates(inspection: Inspection, facet: str) -> str:
    found = _gates_as_values(inspection)
    if found is None:
        if facet != "input":
            return f"none: they locate channels of a block's input, not of its {facet}"
        return f"none: no block before block {inspection.block} has residual gates"
    named = {name: ", ".join(map(str, channels)) or "none" for name, channels in found.items()}
    if not found["only_gates"] and not found["only_images"]:
        return f"{named['channels']} (the same as in the images)"
    return (
        f"{named['channels']} (also in the images: {named['shared']}; in the gates alone: "
        f"{named['only_gates']}; in the images alone: {named['only_images']})"
    )
