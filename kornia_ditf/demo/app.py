"""The page of the demo, in Gradio: what a visitor sees and clicks.

`launch` serves it on this machine; `build` returns the page for any other server, such as a Space
of the Hugging Face Hub (examples/space).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from kornia_ditf.demo.requests import NOTHING, PRESET, Requests
from kornia_ditf.demo.studio import Studio
from kornia_ditf.errors import DiTFError, InvalidArgumentError, MissingExtraError
from kornia_ditf.treatments import TREATMENTS
from kornia_ditf.utils.files import os_errors_as

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise MissingExtraError("the demo needs Gradio: pip install 'kornia-ditf[demo]'") from error

_MAX_FILE = 25 * 1024**2
_MAX_WAITING = 50
_CSS = """
.gradio-container { width: 100%; max-width: min(1280px, 100vw) !important; margin: auto; }
.gradio-container .main, .gradio-container .contain { width: 100%; min-width: 0; }
"""
_INTRODUCTION = """# kornia_ditf
Click a point in image A and see where it lands in image B. Every patch of an image is described by
a [Diffusion Transformer](https://arxiv.org/abs/2505.18584) and compared by cosine.
"""


def launch(
    names: Sequence[str] = ("nano",),
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    **options: Any,
) -> gr.Blocks:
    """Serve the demo in the background.

    Args:
        names: the descriptors on offer, as `create_descriptor` takes them.
        host: the address to listen on; the default can be reached from this machine alone.
        port: None takes the first free one from 7860 on.
        browser: open the page.
        options: of `create_descriptor`, such as `device` or `dtype`.

    Returns:
        the page: `.local_url` is its address, `.close()` stops the server.

    Raises:
        UnknownBackboneError: there is no such descriptor.
        InvalidArgumentError: the address cannot be listened on.
    """
    page = build(names, **options)
    with os_errors_as(InvalidArgumentError, f"cannot listen on {host}"):
        page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=_MAX_FILE,
            share=False,
            ssr_mode=False,
            footer_links=["settings"],
            css=_CSS,
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )
    return page


def build(names: Sequence[str] = ("nano",), **options: Any) -> gr.Blocks:
    """Build the page; arguments and errors as for `launch`.

    Requests wait in a queue and are computed one after another. Images of more than 24 million
    pixels or 25 MB are refused.
    """
    requests = Requests(Studio(names, **options))
    examples = _find_examples()
    with gr.Blocks(title="kornia_ditf", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            images = list(map(_photograph, "AB", examples[0] if examples else (None, None)))
        if examples:
            gr.Examples(examples, images, label="Examples")
        with gr.Row():
            point = [gr.Number(None, label=f"{axis} in image A", minimum=0) for axis in "xy"]
            find = gr.Button("Find this point", variant="primary")
        with gr.Accordion("Descriptor", open=False):
            setting = _setting_inputs(names)
        for event in (images[0].upload, images[0].clear):
            event(lambda: (None, None), None, point, queue=False, api_visibility="private")
        clicked = images[0].select(_clicked, None, point, queue=False, api_visibility="private")
        with gr.Tab("Click a point"):
            _add_location(requests, (clicked.then, find.click), [*images, *point, *setting])
        with gr.Tab("All matches"):
            _add_matches(requests, images, setting)
        with gr.Tab("Compare two descriptors"):
            _add_comparison(requests, names, [*images, *point, *setting])
        with gr.Tab("Look inside"):
            _add_inspection(requests, [*images, *point], setting)
    page.queue(max_size=_MAX_WAITING, default_concurrency_limit=1)
    return page


def _add_location(requests: Requests, events: Sequence[Any], inputs: list[Any]) -> None:
    with gr.Row():
        a = _picture("Image A: your point, and in white where its match returns")
        b = _picture("Image B: similarity, and the best places")
    words = gr.Markdown("Click into image A above, or type a point.")
    ranking = gr.Dataframe(
        headers=["rank", "x", "y", "cosine"], interactive=False, label="Best places in B"
    )
    outputs = [a, b, words, ranking, *_downloads()]
    for event in events:
        event(_saying(requests.locate), inputs, outputs)


def _add_matches(requests: Requests, images: list[Any], setting: list[Any]) -> None:
    search = gr.Checkbox(label="Also try turned and scaled views of B (slower)")
    start = gr.Button("Match the two images", variant="primary")
    outputs = [_picture("Matches: green ones agree on a homography"), gr.Markdown(), *_downloads()]
    start.click(_saying(requests.match), [*images, search, *setting], outputs)


def _add_comparison(requests: Requests, names: Sequence[str], inputs: list[Any]) -> None:
    gr.Markdown("The descriptor above, on the left, against this one:")
    other = _setting_inputs(names)
    start = gr.Button("Compare at the clicked point", variant="primary")
    with gr.Row():
        drawn = [_picture(name) for name in ("The descriptor above", "This one")]
    start.click(_saying(requests.compare), [*inputs, *other], [*drawn, gr.Markdown()])


def _add_inspection(requests: Requests, inputs: list[Any], setting: list[Any]) -> None:
    start = gr.Button("Channels and principal components", variant="primary")
    with gr.Row():
        colours = [_picture(f"Principal components of {side}, in one basis") for side in "AB"]
    outputs: list[Any] = [
        *colours,
        _picture("Channels of image A, block by block", titled=True),
        _picture("What the treatments make of image A", titled=True),
    ]
    start.click(_saying(requests.inspect), [*inputs, *setting], outputs)
    with gr.Row():
        blocks = gr.Textbox("", label="Blocks", placeholder="1, 3, 5")
        timesteps = gr.Textbox("", label="Timesteps", placeholder="0, 100, 300")
    sweep = gr.Button("The clicked point over blocks and timesteps")
    drawn = _picture("Similarity of image B's places to the clicked point", titled=True)
    sweep.click(_saying(requests.sweep), [*inputs, blocks, timesteps, *setting], drawn)


def _photograph(side: str, shown: str | None) -> Any:
    image = gr.Image(
        shown,
        label=f"Image {side}" + (": click a point" if side == "A" else ""),
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        height=360,
        elem_id=f"image-{side.lower()}",
    )

    def uploaded_file(payload: Any) -> str | None:
        if payload is None:
            return None
        if not payload.path:
            raise gr.Error("Upload the image as a file.", print_exception=False)
        return str(payload.path)

    # The file is read with this package's checks; Gradio has made sure that it was uploaded.
    image.preprocess = uploaded_file
    return image


def _setting_inputs(names: Sequence[str]) -> list[Any]:
    with gr.Row():
        return [
            gr.Dropdown(list(names), value=names[0], label="Descriptor"),
            gr.Number(None, precision=0, minimum=0, label="Block", placeholder=PRESET),
            gr.Number(None, minimum=0, maximum=1000, label="Timestep", placeholder=PRESET),
            gr.Dropdown([PRESET, *TREATMENTS], value=PRESET, label="Treatment"),
            gr.Dropdown([NOTHING, *names], value=NOTHING, label="Fuse with"),
        ]


def _picture(label: str, *, titled: bool = False) -> Any:
    """Return a picture to be shown; a titled one has its title drawn in it."""
    return gr.Image(
        label=label,
        show_label=not titled,
        interactive=False,
        type="numpy",
        format="png",
        buttons=["download", "fullscreen"],
    )


def _downloads() -> list[Any]:
    with gr.Accordion("The same in Python, and the result as JSON", open=False):
        return [
            gr.Code(label="Python", language="python", interactive=False),
            gr.Code(label="JSON", language="json", interactive=False, max_lines=30),
        ]


def _clicked(event: gr.SelectData) -> tuple[float, float]:
    return float(event.index[0]), float(event.index[1])


def _saying(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show this package's errors to the visitor; all others stay in the server's log."""

    @wraps(handler)
    def handle(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except DiTFError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return handle


def _find_examples() -> list[list[str]]:
    # Beside this file in a wheel, in examples/data of a checkout.
    for folder in (Path(__file__).parent / "data", Path(__file__).parents[2] / "examples/data"):
        pairs = [
            [str(folder / f"{name}_{side}.jpg") for side in "ab"]
            for name in ("graffiti", "motorcycle")
        ]
        if all(Path(path).is_file() for pair in pairs for path in pair):
            return pairs
    return []
