"""`kornia-ditf demo`: the page on which one clicks a point and sees where it lands."""

from __future__ import annotations

from typing import Annotated

import typer

from kornia_ditf.cli import options


@options.describing("long_side", "dtype", "device")
def demo(
    descriptor: list[str] | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int | None, {"min": 1, "max": 65535}] = None,
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
    *,
    chosen: options.Chosen,
) -> None:
    """Match images in the browser: click a point and see where it lands.

    Needs Gradio: pip install 'kornia-ditf[demo]'. The page can only be reached from this machine
    unless --host says otherwise. Ctrl-C ends it.

    Options:
        --descriptor, --backbone, -b NAME|FOLDER: Offer this descriptor; may be repeated. [default:
            the embedded nano]
        --host ADDRESS: Address to listen on; 0.0.0.0 lets other machines in, without a password.
        --port N: [default: the first free one from 7860]
    """
    from kornia_ditf.cli import output
    from kornia_ditf.demo.app import launch

    names = descriptor or ["nano"]
    page = launch(names, host=host, port=port, browser=browser, **chosen.read())
    output.echo(f"open {page.local_url} in a browser; Ctrl-C ends the demo")
    try:
        page.block_thread()
    finally:
        page.close()
