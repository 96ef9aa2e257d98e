"""`kornia-ditf plugins`: the installed plugins, and the commands that they add."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from kornia_ditf.cli import options, output

if TYPE_CHECKING:
    from kornia_ditf.registry.plugins import Plugin


def plugins(as_json: options.Json = False) -> None:
    """List plugins with their status, what they add, and why any are left out.

    A broken plugin is left out without affecting the rest. The environment variable
    KORNIA_DITF_PLUGINS selects plugins: names separated by commas, or empty for none.
    """
    import warnings

    from kornia_ditf.errors import PluginWarning
    from kornia_ditf.registry.lookup import ask_plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # what they say is said here
        found = ask_plugins()
        commands_of_plugins()
    rows = [
        {
            "plugin": plugin.name,
            "version": plugin.version or "",
            "state": plugin.state,
            "hooks": " ".join(plugin.hooks),
            "adds": str(len(plugin.registered)),
            "from": plugin.distribution or "",
        }
        for plugin in found
    ]
    facts = [
        [
            ("plugin", plugin.name),
            ("file", plugin.origin),
            ("adds", ", ".join(plugin.registered) or "nothing"),
            ("seconds", f"{plugin.seconds:.2f}"),
            *(("why", reason) for reason in plugin.reasons),
        ]
        for plugin in found
    ]
    table = output.Table(rows, right=("adds",), optional=("hooks", "version"))
    text: list[output.Paragraph] = [table, *facts] if found else ["no plugins are installed"]
    document = {"plugins": [_as_values(plugin) for plugin in found]}
    output.show(document, *text, as_json=as_json)


_TOLD = ("name", "distribution", "version", "origin", "registered", "state")


def _as_values(plugin: Plugin) -> dict[str, Any]:
    return {
        **{name: getattr(plugin, name) for name in _TOLD},
        "api": plugin.api if isinstance(plugin.api, int) else None,
        "hooks": list(plugin.hooks),
        "why": plugin.reasons,
        "seconds": round(plugin.seconds, 3),
    }


def commands_of_plugins() -> dict[str, Any]:
    """Return the commands that plugins add, by name."""
    from kornia_ditf.registry.plugins import installed_plugins

    return _commands(installed_plugins())


@cache
def _commands(plugins: Sequence[Plugin]) -> dict[str, Any]:
    from kornia_ditf.cli.app import app

    found: dict[str, Any] = {}
    built_in = {each.name for each in app.registered_commands}
    built_in |= {each.name for each in app.registered_groups}
    for plugin in plugins:
        for name, command in _given_by(plugin).items():
            if name in built_in or name in found:
                plugin.leave_out(f"the command {name!r} is taken")
            else:
                found[name] = command
                plugin.registered.append(f"command {name}")
        plugin.report()
    return found


def _given_by(plugin: Plugin) -> dict[str, Any]:
    from typer.main import get_group

    cli = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    plugin.add_commands(cli)
    if not cli.registered_commands and not cli.registered_groups:
        return {}
    try:
        return dict(get_group(cli).commands)
    except Exception as error:  # noqa: BLE001 - its functions may have parameters of any kind
        plugin.leave_out(f"register_commands: {type(error).__name__}: {error}")
        return {}
