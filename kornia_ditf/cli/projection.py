"""`kornia-ditf projection`: learn and show projections that make descriptors smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kornia_ditf.cli import failures, options, output
from kornia_ditf.cli.progress import StageProgress, Stages

if TYPE_CHECKING:
    from kornia_ditf.projection.stored import Projection

app = typer.Typer(
    help="Learn and show projections that make descriptors smaller.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.command("learn")
@options.describing(without=("projection",))
def learn(
    folder: Annotated[Path, options.path_argument("FOLDER")],
    out: Path,
    chosen: options.Chosen,
    channels: Annotated[int, {"min": 1}] = 128,
    limit: Annotated[int | None, {"min": 1}] = None,
    as_json: options.Json = False,
) -> None:
    """Learn the principal components of a descriptor from the images of a folder.

    With `--projection FILE`, `extract` and `match` then reduce the descriptor's channels, and so
    does `create_descriptor(projection=FILE)`. Partial sums are kept in FILE.part: after an
    interruption, the same command resumes. A bad image is reported and skipped.

    Options:
        --out FILE.safetensors: Output file of the projection.
        --channels K: Keep K principal components.
        --limit N: Use N of the images, drawn by --seed.
    """
    import random

    from kornia_ditf.datasets.files import list_images
    from kornia_ditf.errors import DiTFError, InvalidArgumentError
    from kornia_ditf.projection.learn import learn_projection

    if out.suffix != ".safetensors":
        raise InvalidArgumentError(f"--out must end in .safetensors, got {out}")
    images = list_images(folder)
    if limit is not None and limit < len(images):
        images = sorted(random.Random(chosen.seed or 0).sample(images, limit))
    output.check_output(out, inputs=images)
    stages, failed = Stages(), list[tuple[Path, DiTFError]]()
    with stages.stage("load"):
        descriptor = chosen.load(chosen.spec())

    def report(image: object, error: DiTFError) -> None:
        failed.append((Path(str(image)), error))
        failures.say_error(str(error))

    seen = 0

    def so_far() -> str:
        return f" with {seen} of {len(images)} images done; the same command goes on"

    with failures.saying_interrupted(so_far), StageProgress() as shown:
        shown.begin("learn", len(images))

        def advance(done: int) -> None:
            nonlocal seen
            shown.advance(done - seen)
            seen = done

        projection = learn_projection(
            descriptor,
            images,
            channels,
            prompt=chosen.prompt,
            state=out.with_name(f"{out.name}.part"),
            progress=advance,
            on_error=report,
        )
    projection.save(out)
    _show(projection, out, [path for path, _ in failed], as_json)
    failures.fail_with(failures.exit_code(error) for _, error in failed)


@app.command("show")
def show(
    file: Annotated[Path, options.path_argument("FILE")],
    as_json: options.Json = False,
) -> None:
    """Show the settings that a projection belongs to, and how much of the variance it keeps."""
    from kornia_ditf.projection.stored import Projection

    _show(Projection.load(file), file, [], as_json)


def _show(projection: Projection, file: Path, failed: list[Path], as_json: bool) -> None:
    import json

    width, kept, about = len(projection.mean), projection.width, projection.about
    document = {
        "file": str(file),
        "channels": kept,
        "of": width,
        "explained": round(projection.explained, 6),
        "variances": [float(f"{each:.6g}") for each in projection.variances.tolist()],
        "space": projection.space,
        "massive_channels": projection.channels,
        "failed": [str(path) for path in failed],
        **about,
    }
    facts = [
        ("projection", f"{file}: {width} to {kept} channels, {width / kept:.3g} times less"),
        ("explained", f"{projection.explained:.1%} of the variance"),
        ("effective width", f"{about.get('participation_ratio')} (participation ratio)"),
        ("learned from", f"{about.get('images')} images, {about.get('tokens')} tokens"),
        ("for", json.dumps(projection.space)),
        *((("failed", ", ".join(map(str, failed))),) if failed else ()),
    ]
    output.show(document, facts, as_json=as_json)
