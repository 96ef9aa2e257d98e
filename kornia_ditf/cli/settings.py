"""A descriptor in; what it computes, as facts for people and as values for JSON, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kornia_ditf.descriptor import DiTF
    from kornia_ditf.spec import BackboneSpec


def describe_preset(spec: BackboneSpec) -> str:
    """Say where a preset's numbers come from."""
    uncalibrated = not spec.calibrated and not spec.source.startswith("uncalibrated")
    return f"{'uncalibrated; ' if uncalibrated else ''}{spec.source}"


def preset_facts(name: str | None, spec: BackboneSpec, ditf: DiTF) -> list[tuple[str, str]]:
    """Say which backbone computes, and what."""
    config = ditf.config
    default = "" if name else " (the embedded default; name another with --backbone)"
    draws = f", {config.ensemble} noise draws" if config.ensemble > 1 else ""
    block = f"{config.block} (of 0 to {ditf.backbone.blocks - 1})"
    return [
        ("backbone", f"{spec.name}{default}"),
        ("preset", describe_preset(spec)),
        ("block", f"{block}, timestep {config.timestep:g}{draws}, treatment {config.treatment}"),
    ]


def describe_channels_found(channels: Sequence[int] | None, origin: str) -> str:
    """Name discarded channels and where they were found."""
    if not channels:
        return "none" if channels is None else f"none ({origin})"
    return f"{', '.join(map(str, channels))} ({origin})"


def known_channels(ditf: DiTF) -> tuple[tuple[int, ...] | None, str]:
    """Give the channels that are known before any image is seen, and where they come from."""
    if "discard" not in ditf.config.treatment:
        return (), "this treatment discards none"
    channels = ditf.massive_channels()
    if ditf.config.massive_channels is not None:
        return channels, "from the preset"
    return channels, "kept by an earlier inspect --keep"


def as_values(name: str | None, spec: BackboneSpec, ditf: DiTF) -> dict[str, Any]:
    """Give a descriptor's settings as JSON values; with them its results can be made again."""
    config = ditf.config
    return {
        "name": spec.name,
        "embedded_default": name is None,
        "identity": ditf.backbone.identity,
        "license": spec.license,
        "preset_calibrated": spec.calibrated,
        "preset_source": spec.source,
        "blocks": ditf.backbone.blocks,
        "block": config.block,
        "timestep": config.timestep,
        "treatment": config.treatment,
        "long_side": config.long_side,
        "ensemble": config.ensemble,
        "prompt": config.prompt,
        "seed": config.seed,
        **_place(ditf),
    }


def _place(ditf: DiTF) -> dict[str, str]:
    parameter = next(ditf.backbone.parameters(), None)
    if parameter is None:
        return {}
    return {
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": str(parameter.device),
    }
