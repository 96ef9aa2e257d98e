"""The settings of a descriptor, as facts for people and as values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.backbones.spec import BackboneSpec
    from kornia_ditf.cli.options import Chosen
    from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
    from kornia_ditf.types import Discarded


_CONFIGURED = (
    *("block", "timestep", "timesteps", "facet", "treatment"),
    *("long_side", "ensemble", "prompt", "seed"),
)


def unwrapped(descriptor: DenseDescriptor) -> DenseDescriptor:
    """Return the descriptor whose maps are projected or upsampled; itself where none are."""
    from kornia_ditf.dense import DerivedDescriptor

    while isinstance(descriptor, DerivedDescriptor):
        descriptor = descriptor.base
    return descriptor


def preset_facts(
    name: str | None, spec: BackboneSpec | DescriptorSpec, descriptor: DenseDescriptor
) -> list[tuple[str, str]]:
    """Return the backbone or descriptor and its settings."""
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.projection.descriptor import ProjectedDescriptor
    from kornia_ditf.upsamplers import UpsampledDescriptor

    if isinstance(descriptor, UpsampledDescriptor):
        below = preset_facts(name, spec, descriptor.base)
        return [*below, ("upsampled", str(descriptor.upsampler))]
    if isinstance(descriptor, ProjectedDescriptor):
        below = preset_facts(name, spec, descriptor.base)
        return [*below, ("projection", repr(descriptor.projection))]
    calibrated = getattr(spec, "calibrated", True) or spec.source.startswith("uncalibrated")
    preset = ("preset", f"{'' if calibrated else 'uncalibrated; '}{spec.source}")
    if not isinstance(descriptor, DiTF):
        return [("descriptor", f"{spec.name}, {descriptor.width} channels"), preset]
    config = descriptor.config
    default = "" if name else " (the embedded default; name another with --backbone)"
    draws = f", {config.ensemble} noise draws" if config.ensemble > 1 else ""
    several = "" if config.blocks is None else "s joined"
    blocks = ", ".join(map(str, config.all_blocks))
    facet = "" if config.facet == "input" else f", its {config.facet}"
    mean = "" if config.timesteps is None else "mean of timesteps "
    times = ", ".join(f"{timestep:g}" for timestep in config.all_timesteps)
    taken = f"{blocks} (of 0 to {descriptor.backbone.blocks - 1}){facet}"
    noise = f"{mean or 'timestep '}{times}{draws}"
    return [
        ("backbone", f"{spec.name}{default}"),
        preset,
        (f"block{several}", f"{taken}, {noise}, treatment {config.treatment}"),
    ]


def describe_channels_found(channels: Sequence[int] | None, origin: str) -> str:
    """List discarded channels and where they were found."""
    if not channels:
        return "none" if channels is None else f"none ({origin})"
    return f"{', '.join(map(str, channels))} ({origin})"


def known_channels(descriptor: DenseDescriptor) -> tuple[tuple[int, ...] | None, str]:
    """Return the channels that are known before any image is seen, and their source."""
    from kornia_ditf.descriptor import DiTF

    descriptor = unwrapped(descriptor)
    if not isinstance(descriptor, DiTF):
        return (), "it is no DiTF, and does not tell"
    if not descriptor.config.steps.discards:
        return (), "this treatment discards none"
    known = descriptor.known_channels()
    if known is None:
        return None, ""
    return known.channels, describe_origin(known)


def describe_origin(known: Discarded) -> str:
    """Return the source of discarded channels, as text."""
    kept = known.source == "calibration file"
    return "kept by an earlier inspect --keep" if kept else f"from the {known.source}"


def prompts_of(descriptor: DenseDescriptor, prompts: Sequence[str]) -> str | list[str] | None:
    """Return the prompts to pass with the images; a DiTF keeps a single one in its settings."""
    from kornia_ditf.descriptor import DiTF

    if len(prompts) > 1:
        return list(prompts)
    return None if isinstance(unwrapped(descriptor), DiTF) or not prompts else prompts[0]


def as_values(
    chosen: Chosen, spec: BackboneSpec | DescriptorSpec, descriptor: DenseDescriptor
) -> dict[str, Any]:
    """Return the settings of a descriptor as JSON values, enough to reproduce its results."""
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.projection.descriptor import ProjectedDescriptor
    from kornia_ditf.upsamplers import UpsampledDescriptor

    if isinstance(descriptor, UpsampledDescriptor):
        below = as_values(chosen, spec, descriptor.base)
        return {**below, "upsample": str(descriptor.upsampler)}
    if isinstance(descriptor, ProjectedDescriptor):
        below = as_values(chosen, spec, descriptor.base)
        own = {"width": descriptor.width, "projection": descriptor.projection.digest}
        return {**below, **own}
    values = {
        "name": spec.name,
        "embedded_default": chosen.backbone is None,
        "license": spec.license,
        "preset_source": spec.source,
        "width": descriptor.width,
    }
    if isinstance(descriptor, DiTF):
        backbone, config = descriptor.backbone, descriptor.config
        values |= {
            "identity": backbone.identity,
            "settings": backbone.settings(),
            "preset_calibrated": getattr(spec, "calibrated", False),
            "blocks": backbone.blocks,
            "joined_blocks": config.blocks,
            **{name: getattr(config, name) for name in _CONFIGURED},
        }
    else:
        values["identity"] = descriptor.identity
        values["options"] = chosen.but(upsample=None, projection=None).read(spec)
    parameter = next(descriptor.parameters(), None)
    if parameter is not None:
        values["dtype"] = str(parameter.dtype).removeprefix("torch.")
        values["device"] = str(parameter.device)
    return values
