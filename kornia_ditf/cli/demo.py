"""`kornia-ditf demo`: the page on which one clicks a point and sees where it lands."""

from __future__ import annotations

from typing import Annotated

import typer

from kornia_ditf.cli import options


def demo(
    descriptors: Annotated[
        list[str] | None,
        typer.Option(
            "--descriptor",
            "--backbone",
            "-b",
            metavar="NAME|FOLDER",
            help="Offer this descriptor; may be repeated.  [default: the embedded nano]",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Listen here; 0.0.0.0 lets other machines in, without a password.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="N", help="[default: the first free one from 7860]"),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
    long_side: options.LongSide = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
) -> None:
    """Match images in the browser: click a point and see where it lands.

    Needs Gradio: pip install 'kornia-ditf[demo]'. The page can be reached from this machine alone
    unless --host says otherwise. Ctrl-C ends it.
    """
    from kornia_ditf.cli import output
    from kornia_ditf.demo.app import launch

    settings = {"long_side": long_side, "dtype": dtype, "device": device}
    given = {name: value for name, value in settings.items() if value is not None}
    page = launch(descriptors or ["nano"], host=host, port=port, browser=browser, **given)
    output.echo(f"open {page.local_url} in a browser; Ctrl-C ends the demo")
    try:
        page.block_thread()
    finally:
        page.close()
