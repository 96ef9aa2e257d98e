"""Where a study's presets and protocols were published for each other, and where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.protocols.presets import find_protocol
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.registry.lookup import find_descriptor, list_descriptors
from kornia_ditf.study.define.listing import ListedSet
from kornia_ditf.study.define.spec import Configuration, Study

_COMPARED = ("block", "up_block", "timestep", "ensemble", "prompt")
_OTHER_NAMES = {"up_ft_index": "up_block"}


def preset_notes(study: Study, sets: Sequence[ListedSet]) -> list[str]:
    """Report where a preset meets a protocol that its authors ran with other settings.

    Returns:
        one sentence for each preset and protocol; empty where all belong together.
    """
    notes = [
        _note(configuration, protocol)
        for listed in sets
        for protocol, _ in listed.protocols
        for configuration in study.configurations()
    ]
    return list(dict.fromkeys(note for note in notes if note))


def _note(configuration: Configuration, protocol: Protocol) -> str:
    spec = find_descriptor(configuration.name, **hub_options(configuration.settings))
    published = getattr(spec, "protocol", "")
    own = find_protocol(published) if published else protocol
    layer = "block" if "block" in own.hints else "up_block"
    if not published or layer not in protocol.hints:  # of another method
        return ""
    given = {_OTHER_NAMES.get(name, name): v for name, v in configuration.settings.items()}
    settings = {"ensemble": 1, **own.hints, "prompt": getattr(spec, "prompt", ""), **given}
    differing = [
        f"{name} {settings[name]!r} instead of {protocol.hints[name]!r}"
        for name in _COMPARED
        if name in protocol.hints and not _same(name, settings[name], protocol.hints[name])
    ]
    if own.fit != protocol.fit:
        sizes = [f"images of {each.kind} {each.side}" for each in (protocol.fit, own.fit)]
        differing.append(" instead of its own ".join(sizes))
    if not differing:
        return ""
    presets = [each.name for each in list_descriptors().values() if each.protocol == protocol.name]
    advice = (
        f"; its preset is {presets[0]}" if presets and configuration.name not in presets else ""
    )
    return (
        f"{configuration.name} with {protocol.name}: {', '.join(differing)}, which is not what "
        f"the authors ran{advice}"
    )


def _same(name: str, value: Any, published: Any) -> bool:
    if name == "prompt" and "{" in str(published):
        return "{" in str(value)  # any template; captions are better than the published one
    return bool(value == published)
