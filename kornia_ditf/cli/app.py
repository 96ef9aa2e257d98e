"""The command line's commands, put together; loads no torch until a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from kornia_ditf.cli import (
    backbones,
    calibrate,
    datasets,
    demo,
    doctor,
    extract,
    inspect,
    match,
    match_folder,
    matchers,
    plugins,
    presets,
    projection,
    study,
)
from kornia_ditf.cli.failures import EXIT_CODES, CommandGroup

app = typer.Typer(
    cls=CommandGroup,
    help="Dense descriptors and correspondences from pretrained Diffusion Transformers.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help reads the same in a terminal and in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("match")(match.match)
app.command("match-folder")(match_folder.match_folder)
app.command("extract")(extract.extract)
app.command("inspect")(inspect.inspect)
app.command("calibrate")(calibrate.calibrate)
app.command("demo")(demo.demo)
app.add_typer(backbones.app, name="backbones")
app.add_typer(presets.app, name="presets")
app.add_typer(projection.app, name="projection")
app.command("matchers")(matchers.matchers)
app.command("plugins")(plugins.plugins)
app.command("doctor")(doctor.doctor)
app.add_typer(datasets.app, name="datasets")
app.add_typer(study.app, name="study")


def _show_version(wanted: bool) -> None:
    if wanted:
        from kornia_ditf.cli.output import echo
        from kornia_ditf.utils.provenance import package_version

        echo(f"kornia-ditf {package_version('kornia-ditf')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
