"""Finding image matchers by name, and loading them; any dense descriptor is one."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from kornia_ditf.errors import InvalidArgumentError, MissingExtraError, UnknownBackboneError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matchers.base import ImageMatcher, MatcherSpec, set_options
from kornia_ditf.matchers.described import DescriptorMatcher
from kornia_ditf.matchers.vismatch import PREFIX, list_vismatch, vismatch_spec
from kornia_ditf.registry.lookup import (
    create_descriptor,
    find_descriptor,
    find_spec_of,
    list_specs_of,
    load_spec,
)
from kornia_ditf.registry.options import known_options
from kornia_ditf.registry.plugins import describe_error

_OF_ALL = ("verification", "threshold")
OF_DESCRIPTORS = ("detector", "max_keypoints", "ratio", "refined", "prompt")


def list_matchers() -> dict[str, MatcherSpec]:
    """List every installed matcher by name, without the dense descriptors; loads no model.

    Example:
        >>> list_matchers()["sift"].source
        'Lowe, IJCV 2004'
    """
    found = {spec.name: spec for spec in list_specs_of(MatcherSpec)}
    return found | {spec.name: spec for spec in list_vismatch()}


def find_matcher(name: str) -> MatcherSpec:
    """Find a matcher's spec by its name, or make one of a dense descriptor.

    Args:
        name: an installed matcher's, `vismatch:NAME`, or whatever `create_descriptor` takes.

    Raises:
        UnknownBackboneError: neither a matcher nor a descriptor.
    """
    if name.startswith(PREFIX):
        return vismatch_spec(name.removeprefix(PREFIX))
    found = find_spec_of(name, MatcherSpec)
    if found is not None:
        return found
    try:
        spec = find_descriptor(name)
    except UnknownBackboneError as error:
        known = list_matchers()
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownBackboneError(
            f"no matcher is named {name!r}{advice} (installed: {', '.join(known)}, and any "
            "descriptor of `kornia-ditf backbones`)"
        ) from error
    return MatcherSpec(
        name=spec.name,
        load=partial(load_descriptor_matcher, name),
        source=spec.source,
        license=spec.license,
    )


def load_matcher(name: str, **options: Any) -> ImageMatcher:
    """Load an image matcher by its name.

    Args:
        name: an installed matcher's (`sift`, `loftr` ...), `vismatch:NAME`, or a dense
            descriptor's, whose tokens are matched.
        options: of every matcher: `verification` (`homography` or `fundamental`: keep what
            MAGSAC++ takes for inliers), its `threshold` in pixels, and `long_side`. Of
            descriptors: `detector` (of OpenCV, at whose keypoints descriptors are read),
            `max_keypoints`, `ratio` and `refined`, and those of `create_descriptor`. All others
            are the matcher's own: `ratio` and `max_keypoints` of local features,
            `random_weights` of learned ones, `device`.

    Raises:
        UnknownBackboneError: there is no such matcher.
        InvalidArgumentError: an option is unknown or wrong.
        MissingExtraError: a package that it needs is not installed.
        HubError: its weights cannot be had.

    Example:
        >>> image = torch.rand(3, 64, 96)
        >>> matches = load_matcher("sift").match(image, image)
        >>> bool(torch.equal(matches.points_a, matches.points_b))
        True
    """
    return load_matcher_spec(find_matcher(name), options)


def missing_for(spec: MatcherSpec) -> str:
    """Return what a matcher lacks here, whatever its plugin does when it is asked."""
    try:
        return str(spec.lacks())
    except Exception as error:  # noqa: BLE001 - anybody's code
        return f"asked what it lacks, it failed with {describe_error(error)}"


def load_matcher_spec(spec: MatcherSpec, options: dict[str, Any]) -> ImageMatcher:
    """Load a matcher by its spec; options and errors as for `load_matcher`."""
    reason = missing_for(spec)
    if reason:
        raise MissingExtraError(f"{spec.name} cannot be loaded: {reason}")
    shared, own = split_options(spec, options)
    matcher = load_spec(spec, (), own)
    if not isinstance(matcher, ImageMatcher):
        raise InvalidArgumentError(
            f"load of {spec.name!r} gave a {type(matcher).__name__}, not an ImageMatcher; the "
            "plugin that registers it is at fault"
        )
    return set_options(matcher, shared)


def descriptor_of(spec: MatcherSpec) -> str | None:
    """Return the name of the dense descriptor that a matcher is made of, if it is."""
    load: Any = spec.load
    return load.args[0] if getattr(load, "func", None) is load_descriptor_matcher else None


def split_options(
    spec: MatcherSpec, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that every matcher has, and those that are for its loader."""
    names = _OF_ALL if descriptor_of(spec) else (*_OF_ALL, "long_side")
    shared = {name: value for name, value in options.items() if name in names}
    return shared, {name: value for name, value in options.items() if name not in names}


def takes_device(name: str) -> bool:
    """Whether a matcher has the option `device`."""
    spec = find_matcher(name)
    return descriptor_of(spec) is not None or "device" in set(known_options(spec.load))


def load_descriptor_matcher(name: str, **options: Any) -> DescriptorMatcher:
    """Make a matcher of a dense descriptor; `hub_options` and others as `create_descriptor`."""
    spec = find_descriptor(name, **hub_options(options))
    taken = [each for each in OF_DESCRIPTORS if each in options]
    own = {each: options.pop(each) for each in taken}
    return DescriptorMatcher(create_descriptor(spec.name, **options), **own)
