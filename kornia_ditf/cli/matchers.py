"""`kornia-ditf matchers`: the image matchers that are installed, and what others need."""

from __future__ import annotations

from kornia_ditf.cli import options, output


def matchers(as_json: options.Json = False) -> None:
    """List image matchers and what is missing for each, without loading a model.

    Any descriptor of `kornia-ditf backbones` is a matcher as well. Learned matchers download their
    weights when they are first loaded.
    """
    from kornia_ditf.registry.matchers import list_matchers, missing_for

    document = [
        {
            "name": spec.name,
            "lacks": missing_for(spec),
            "license": spec.license,
            "source": spec.source,
        }
        for spec in list_matchers().values()
    ]
    rows = [
        {
            "name": each["name"],
            "state": "missing" if each["lacks"] else "ready",
            "licence": each["license"],
            "source": each["source"],
        }
        for each in document
    ]
    output.show(
        {"matchers": document},
        output.Table(rows, optional=("source", "licence")),
        "",
        *(f"{each['name']}: {each['lacks']}" for each in document if each["lacks"]),
        "vismatch:NAME: any matcher of the package vismatch (pip install vismatch)",
        as_json=as_json,
    )
