"""Configurations grouped by forward pass, and the keys that results are stored under.

Every piece of work has a key made of all that decides its result, so what is done is found again,
and a change touches only what it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.calibration.store import NO_PRESET, with_preset
from kornia_ditf.config import DiTFConfig
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matching.poses import UPRIGHT
from kornia_ditf.projection.stored import Projection
from kornia_ditf.protocols.protocol import Fit, Protocol
from kornia_ditf.registry.checking import check_descriptor
from kornia_ditf.registry.lookup import find_descriptor
from kornia_ditf.registry.treatments import read_config
from kornia_ditf.registry.upsamplers import find_upsampler
from kornia_ditf.study.define.spec import Configuration
from kornia_ditf.study.store.cache import content_key
from kornia_ditf.utils.checks import check_integer

# Of one forward pass several blocks can be taken, and each can be treated in several ways.
_AFTER_THE_FORWARD = (
    *("block", "blocks", "treatment", "massive_channels", "pca", "projection", "upsample"),
)
_TIMES = ("timestep", "timesteps")
_DITF_FIELDS = {field.name for field in fields(DiTFConfig)}


@dataclass(frozen=True, slots=True)
class ForwardGroup:
    """Configurations that one forward pass serves.

    Args:
        name: of the descriptor.
        source: where its weights are, if not in their own place.
        loading: options that decide what is loaded.
        shared: the settings of the forward pass. Where members average timesteps it has none, and
            there is a pass for each timestep of any member.
        members: the configurations.
    """

    name: str
    source: str | None
    loading: Mapping[str, Any]
    shared: Mapping[str, Any]
    members: tuple[Configuration, ...]

    @property
    def weights(self) -> str:
        """Key of the weights, whatever block they are loaded up to."""
        return content_key(name=self.name, source=self.source, loading=self.loading)


def group_configurations(configurations: Iterable[Configuration]) -> list[ForwardGroup]:
    """Group configurations by forward pass; groups with the same weights are adjacent.

    Raises:
        InvalidArgumentError: a descriptor's loader does not take an option.

    Example:
        >>> blocks = [Configuration(f"b{b}", "nano", None, {"block": b}) for b in (3, 5)]
        >>> [len(group.members) for group in group_configurations(blocks)]
        [2]
    """
    parts: list[tuple[str, dict[str, Any], dict[str, Any], Configuration]] = []
    for each in configurations:
        spec = find_descriptor(each.name, **hub_options(each.settings))
        own = {"prompt", "pca", "projection", "upsample"} | (
            _DITF_FIELDS if isinstance(spec, BackboneSpec) else set()
        )
        loading = {k: v for k, v in each.settings.items() if k not in own}
        check_descriptor(each.label, each.name, loading, of_all=())
        find_upsampler(each.settings.get("upsample"))  # an error now, not in a worker
        shared: dict[str, Any] = {
            k: v for k, v in each.settings.items() if k in own and k not in _AFTER_THE_FORWARD
        }
        others = {key: value for key, value in shared.items() if key not in _TIMES}
        key = content_key(name=each.name, source=each.source, loading=loading, shared=others)
        parts.append((key, loading, shared, each))
    # Means over timesteps take their forwards from one another, and from sweeps beside them.
    averaged = {key for key, _, shared, _ in parts if "timesteps" in shared}
    groups: dict[str, ForwardGroup] = {}
    for key, loading, shared, each in parts:
        for name in _TIMES if key in averaged else ():
            shared.pop(name, None)
        whole = content_key(key=key, shared=shared)
        known = groups.get(whole, ForwardGroup(each.name, each.source, loading, shared, ()))
        groups[whole] = replace(known, members=(*known.members, each))
    order = list(dict.fromkeys(group.weights for group in groups.values()))
    return sorted(groups.values(), key=lambda group: order.index(group.weights))


def member_config(member: Configuration, fit: Fit) -> DiTFConfig:
    """Return the configuration of a DiTF; images fitted by a protocol keep their size.

    Raises:
        InvalidArgumentError: a setting is out of range, or the descriptor is no DiTF.
    """
    spec = find_descriptor(member.name, **hub_options(member.settings))
    if not isinstance(spec, BackboneSpec):
        raise InvalidArgumentError(f"{member.name} is not a backbone of a DiTF")
    # A study's numbers are those of its file, whatever was calibrated on this machine.
    preset = member.settings.get("preset", NO_PRESET)
    spec = with_preset(spec, member.source, preset, **hub_options(member.settings))
    settings = {k: v for k, v in member.settings.items() if k in _DITF_FIELDS and k != "prompt"}
    if fit.kind != "whole":
        settings["long_side"] = None
    config = read_config(spec, settings)
    file = member.settings.get("projection")
    if file is not None and config.steps.discards and config.massive_channels is None:
        config = replace(config, massive_channels=Projection.load(file).channels[0])
    check_integer(f"block of {member.label}", max(config.all_blocks), 0, spec.blocks - 1)
    return config


def last_blocks(groups: Iterable[ForwardGroup]) -> dict[str, int]:
    """Return the last block needed of each backbone, by `ForwardGroup.weights`.

    Raises:
        InvalidArgumentError: a setting is out of range.
    """
    reach: dict[str, int] = {}
    for group in groups:
        if isinstance(find_descriptor(group.name, **hub_options(group.loading)), BackboneSpec):
            blocks = [max(member_config(m, Fit()).all_blocks) for m in group.members]
            reach[group.weights] = max(reach.get(group.weights, 0), *blocks)
    return reach


def records_key(identity: str, prompt: str | None, protocol: Protocol) -> str:
    """Return the key of an experiment's records: a digest of all that decides them but the pairs.

    Args:
        identity: of the descriptor.
        prompt: template of the prompts.
        protocol: what it says of itself (name, source, hints) does not matter.
    """
    scoring = asdict(protocol)
    for told in ("name", "source", "hints", "datasets", *(() if protocol.pca else ("pca",))):
        del scoring[told]
    scoring["compat"] = sorted(scoring["compat"])
    if scoring["align"] == "none":  # records of before there was any are good
        del scoring["align"]
    return content_key(identity=identity, scoring=scoring, prompt=prompt)


def map_key(identity: str, digest: str, prompt: str | None, fit: Fit, pose: str = UPRIGHT) -> str:
    """Return the key of a descriptor map; `digest` is of the image's bytes."""
    posed = {} if pose == UPRIGHT else {"pose": pose}
    return content_key(identity=identity, image=digest, prompt=prompt, fit=asdict(fit), **posed)
