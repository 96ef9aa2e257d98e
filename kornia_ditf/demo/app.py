"""The page of the demo, in Gradio: what a visitor sees and clicks.

`launch` serves it on this machine; `build` returns the page for any other server, such as a
Hub Space (examples/space).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from torch import Tensor

from kornia_ditf.demo import pictures
from kornia_ditf.demo.studio import Location, Setting, Studio, as_python, as_values
from kornia_ditf.errors import DiTFError, ImageError, MissingExtraError
from kornia_ditf.treatments import TREATMENTS
from kornia_ditf.utils.images import read_image, read_size
from kornia_ditf.viz.channels import draw_channels, draw_treatments
from kornia_ditf.viz.matches import draw_matches
from kornia_ditf.viz.pca import draw_pca

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
try:
    import gradio as gr
except ImportError as error:
    raise MissingExtraError("the demo needs Gradio: pip install 'kornia-ditf[demo]'") from error

MAX_PIXELS = 24_000_000
MAX_FILE = 25 * 1024**2
MAX_WAITING = 50
_PRESET = "preset"
_NOTHING = "nothing"
_CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
#title p { color: var(--body-text-color-subdued); margin-top: 0; }
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
    block: bool = True,
    **options: Any,
) -> gr.Blocks:
    """Serve the demo until it is interrupted.

    Args:
        names: the descriptors on offer, as `create_descriptor` takes them.
        host: the address to listen on; the default can be reached from this machine alone.
        port: None takes the first free one from 7860 on.
        browser: open the page.
        block: whether to wait until the server is stopped; without, the page is returned and
            `.close()` stops it.
        options: of `create_descriptor`, such as `device` or `dtype`.

    Raises:
        MissingExtraError: Gradio is not installed.
        UnknownBackboneError: there is no such descriptor.
    """
    page = build(names, **options)
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        quiet=True,
        prevent_thread_lock=not block,
        max_file_size=MAX_FILE,
        share=False,
        ssr_mode=False,
        footer_links=["settings"],
        css=_CSS,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    return page


def build(names: Sequence[str] = ("nano",), **options: Any) -> gr.Blocks:
    """Build the page; arguments and errors as for `launch`.

    Requests wait in a queue and are computed one after another; nothing of one visitor is shown
    to another. Images of more than 24 million pixels or 25 MB are refused.
    """
    studio = Studio(names, **options)

    with gr.Blocks(title="kornia_ditf", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(_INTRODUCTION, elem_id="title")
        point = gr.State(None)
        examples = _find_examples()
        shown = examples[0] if examples else [None, None]
        with gr.Row():
            image_a, image_b = map(_photograph, "AB", shown)
        if examples:
            gr.Examples(examples, [image_a, image_b], label="Examples")
        with gr.Accordion("Descriptor", open=False):
            first = _setting_inputs(studio)
        with gr.Tab("Click a point"):
            with gr.Row():
                marked_a = _picture("Image A: your point, and in white where its match returns")
                marked_b = _picture("Image B: similarity, and the best places")
            told = gr.Markdown("Click into image A above.")
            ranking = gr.Dataframe(
                headers=["rank", "x", "y", "cosine"], interactive=False, label="Best places in B"
            )
            located = _downloads()
        with gr.Tab("All matches"):
            search = gr.Checkbox(label="Also try turned and scaled views of B (slower)")
            match_button = gr.Button("Match the two images", variant="primary")
            drawn = _picture("Matches: green ones agree on a homography")
            matched_told = gr.Markdown()
            matched = _downloads()
        with gr.Tab("Compare two descriptors"):
            gr.Markdown("The descriptor above, on the left, against this one:")
            with gr.Row():
                second = _setting_inputs(studio)
            compare_button = gr.Button("Compare at the clicked point", variant="primary")
            with gr.Row():
                left, right = (_picture(name) for name in ("The descriptor above", "This one"))
            compared_told = gr.Markdown()
        with gr.Tab("Look inside"):
            inspect_button = gr.Button(
                "Massive channels and principal components", variant="primary"
            )
            colours = _picture("Principal components of both images, in one basis")
            channels = _picture("Channels of image A, block by block")
            treatments = _picture("What the treatments make of image A")
            with gr.Row():
                blocks = gr.Textbox("", label="Blocks", placeholder="1, 3, 5")
                timesteps = gr.Textbox("", label="Timesteps", placeholder="0, 100, 300")
            sweep_button = gr.Button("The clicked point over blocks and timesteps")
            swept = _picture("Similarity of image B's places to the clicked point")

        def clicked(event: gr.SelectData) -> tuple[float, float]:
            return float(event.index[0]), float(event.index[1])

        def locate(path_a: Any, path_b: Any, at: Any, *chosen: Any) -> Any:
            a, b = _read_pair(path_a, path_b)
            found = studio.locate(_setting(chosen), a, b, _read_point(at))
            rows = [
                [rank, round(x, 1), round(y, 1), round(score, 3)]
                for rank, ((x, y), score) in enumerate(
                    zip(found.places, found.scores, strict=True), 1
                )
            ]
            return (
                pictures.draw_point(a, found.point, found.returned),
                pictures.draw_location(b, found),
                _describe(found),
                rows,
                *_take_away(_setting(chosen), found),
            )

        def match(path_a: Any, path_b: Any, searched: bool, *chosen: Any) -> Any:
            a, b = _read_pair(path_a, path_b)
            setting = _setting(chosen)
            found = studio.match(setting, a, b, search=bool(searched))
            inliers = found.verification.inliers
            words = (
                f"**{len(found.matches)}** matches, **{int(inliers.sum())}** of them within "
                f"{found.threshold:.1f} px of a common homography."
            )
            attempt = found.attempts[found.chosen]
            if found.chosen:
                words += (
                    f" Image B was turned by {attempt.turn:.0f} degrees and described "
                    f"{attempt.scale:.2g} times as large."
                )
            drawing = draw_matches(a, b, found.matches, limit=80, inliers=inliers)
            return (drawing, words, *_take_away(setting, found, search=bool(searched)))

        def compare(path_a: Any, path_b: Any, at: Any, *chosen: Any) -> Any:
            a, b = _read_pair(path_a, path_b)
            place = _read_point(at)
            half = len(chosen) // 2
            results = [
                studio.locate(_setting(part), a, b, place)
                for part in (chosen[:half], chosen[half:])
            ]
            words = "\n".join(
                f"- **{name}**: {_describe(found)}"
                for name, found in zip(("left", "right"), results, strict=True)
            )
            return (*(pictures.draw_location(b, found) for found in results), words)

        def inspect(path_a: Any, path_b: Any, at: Any, *chosen: Any) -> Any:
            a, b = _read_pair(path_a, path_b)
            setting = _setting(chosen)
            place = _read_point(at) if at else ((a.shape[3] - 1) / 2, (a.shape[2] - 1) / 2)
            joint = draw_pca([studio.describe(setting, image) for image in (a, b)])
            found = studio.inspect(setting, a, place)
            return joint, draw_channels(found), draw_treatments(found, a)

        def sweep(path_a: Any, path_b: Any, at: Any, some: str, noise: str, *chosen: Any) -> Any:
            a, b = _read_pair(path_a, path_b)
            numbers = [int(value) for value in _read_numbers("blocks", some)]
            steps = _read_numbers("timesteps", noise)
            cells = studio.sweep(_setting(chosen), a, b, _read_point(at), numbers, steps)
            return pictures.draw_sweep(b, cells, numbers, steps)

        both = [image_a, image_b]
        outputs = [marked_a, marked_b, told, ranking, *located]
        image_a.select(clicked, None, point, queue=False, api_visibility="private").then(_saying(locate), [*both, point, *first], outputs)
        for event in (image_a.upload, image_a.clear):
            event(lambda: None, None, point, queue=False, api_visibility="private")
        match_button.click(_saying(match), [*both, search, *first], [drawn, matched_told, *matched])
        compare_button.click(
            _saying(compare), [*both, point, *first, *second], [left, right, compared_told]
        )
        inspect_button.click(
            _saying(inspect), [*both, point, *first], [colours, channels, treatments]
        )
        sweep_button.click(_saying(sweep), [*both, point, blocks, timesteps, *first], swept)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


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

    # The handlers read the file themselves, with this package's checks.
    image.preprocess = uploaded_file  # type: ignore[method-assign]
    return image


def _setting_inputs(studio: Studio) -> list[Any]:
    names = list(studio.specs)
    return [
        gr.Dropdown(names, value=names[0], label="Descriptor"),
        gr.Number(None, precision=0, minimum=0, label="Block", placeholder=_PRESET),
        gr.Number(None, minimum=0, maximum=1000, label="Timestep", placeholder=_PRESET),
        gr.Dropdown([_PRESET, *TREATMENTS], value=_PRESET, label="Treatment"),
        gr.Dropdown([_NOTHING, *names], value=_NOTHING, label="Fuse with"),
    ]


def _picture(label: str) -> Any:
    buttons = ["download", "fullscreen"]
    return gr.Image(label=label, interactive=False, type="numpy", format="png", buttons=buttons)


def _downloads() -> list[Any]:
    with gr.Accordion("Take it away", open=False):
        return [
            gr.Code(label="The same in Python", language="python", interactive=False),
            gr.Code(label="Result as JSON", language="json", interactive=False),
        ]


def _saying(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show our own errors to the visitor; all others stay on the server's log."""

    @wraps(handler)
    def handle(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except DiTFError as error:
            raise gr.Error(str(error), duration=20, print_exception=False) from error

    return handle


def _setting(chosen: Sequence[Any]) -> Setting:
    name, block, timestep, treatment, fused = chosen
    return Setting(
        str(name),
        None if block is None else int(block),
        None if timestep is None else float(timestep),
        None if treatment in (None, _PRESET) else str(treatment),
        None if fused in (None, _NOTHING) else str(fused),
    )


def _read_pair(path_a: str | None, path_b: str | None) -> tuple[Tensor, Tensor]:
    if path_a is None or path_b is None:
        raise ImageError("choose two images first, or click one of the examples")
    return _read(path_a, "A"), _read(path_b, "B")


def _read(path: str, side: str) -> Tensor:
    try:
        height, width = read_size(path)
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} million; "
                "make the image smaller"
            )
        return read_image(path)
    except ImageError as error:
        reason = str(error).replace(str(path), Path(path).name)
        raise ImageError(f"image {side}: {reason}") from error


def _read_point(point: Any) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError) as error:
        raise ImageError("click a point in image A first") from error
    return x, y


def _read_numbers(name: str, text: str) -> list[float]:
    from kornia_ditf.errors import InvalidArgumentError

    try:
        numbers = [float(part) for part in str(text).split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 1000 for number in numbers):
        raise InvalidArgumentError(f"{name} must be a list such as 1, 3, 5, got {text!r}")
    return numbers


def _describe(found: Location) -> str:
    (x, y), (u, v) = found.point, found.places[0]
    return (
        f"({x:.0f}, {y:.0f}) lands at **({u:.0f}, {v:.0f})** with cosine {found.scores[0]:.3f}; "
        f"looked up from there, it returns {found.cycle_error:.1f} px from where you clicked."
    )


def _take_away(setting: Setting, result: Any, **search: bool) -> tuple[str, str]:
    return as_python(setting, result, **search), json.dumps(as_values(setting, result), indent=1)


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
