"""`kornia-ditf extract --engine ray`: its plan, and the work on a cluster by Ray Data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_ditf import errors
from kornia_ditf.cli import failures, output, progress
from kornia_ditf.cli.shards import Shard, ShardWriter, differing_in
from kornia_ditf.utils.text import byte_size

if TYPE_CHECKING:
    from kornia_ditf.cli.describing import Request
    from kornia_ditf.utils.sources import Piece

_STORE_BYTES = 100 * 2**20  # jobs and results are texts; images and maps never pass through it
_SAMPLES = 8
_CALIBRATION_PIECES = 4
_MOST_LOST = 16
_DEADLY = "its worker dies of it, out of memory or by a fault of a library; it is left out"
_Done = tuple["Piece", Shard]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an extraction takes.

    Args:
        images: how many there are.
        shards: how many are written.
        image_bytes: of the encoded images.
        map_bytes: of the shards, from the sizes of a few images; None where none could be read.
        weights_bytes: of the weights in each worker; None if it is known only after loading.
        shard_bytes: of images and maps in each worker, at most: those of its largest shard.
    """

    images: int
    shards: int
    image_bytes: int
    map_bytes: int | None
    weights_bytes: int | None
    shard_bytes: int

    def facts(self) -> list[tuple[str, str]]:
        """Describe the plan in labelled lines."""
        weights = f"{byte_size(self.weights_bytes)} of weights"
        return [
            (
                "images",
                f"{self.images:,} ({byte_size(self.image_bytes)}) in {self.shards:,} shards",
            ),
            ("descriptors", f"about {byte_size(self.map_bytes)}"),
            ("each worker", f"{weights}, up to {byte_size(self.shard_bytes)} of images"),
        ]


def extract_on_ray(
    request: Request,
    paths: Sequence[Path],
    out: Path,
    *,
    per_shard: int,
    column: str | None,
    plan_only: bool,
    as_json: bool,
    **cluster: Any,
) -> None:
    """Describe images on a cluster, see `run_pieces`, and write content-named shards.

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidArgumentError: there are no images, or no cluster at the address.
        DiTFError: the descriptor cannot be loaded, or a shard cannot be written.
    """
    from kornia_ditf.utils.files import make_folder, sweep
    from kornia_ditf.utils.sources import list_pieces

    pieces, unread = list_pieces(paths, per_shard, column=column)
    plan = make_plan(request, pieces)
    if plan_only:
        output.show(asdict(plan), plan.facts(), as_json=as_json)
        return
    output.echo("plan: " + "; ".join(f"{name} {text}" for name, text in plan.facts()), error=True)
    make_folder(out)
    sweep(out)
    failed = [(label, failures.exit_code(error), str(error)) for label, error in unread]
    for _, _, message in failed:
        failures.say_error(message)
    done: list[Shard] = []

    def so_far() -> str:
        count = sum(shard.images for shard in done)
        return f" with {count} of {plan.images} images done; the same command goes on"

    with failures.saying_interrupted(so_far), progress.StageProgress() as shown:
        shown.begin("extract", plan.images)
        for shard in run_pieces(pieces, request, out.absolute(), **cluster):
            _check(shard, done)
            for message in () if done else shard.warnings:
                shown.warn(message)
            if shard.made:
                done.append(shard)
            failed += shard.failed
            for _, _, message in shard.failed:
                failures.say_error(message)
            shown.advance(shard.images + len(shard.failed))
    if request.overwrite and done:
        _remove_others(out, done)
    written = sorted({shard.name for shard in done if shard.written})
    kept = sorted({shard.name for shard in done if shard.name} - set(written))
    images = sum(shard.images for shard in done)
    facts = [("written", f"{images} of {plan.images} images, in {len(written)} shards in {out}")]
    if kept:
        facts.append(("skipped", f"{len(kept)} shards that are there with the same settings"))
    if failed:
        facts.append(("failed", ", ".join(label for label, _, _ in failed)))
    document = {
        **(dict(done[0].made) if done else {}),
        "plan": asdict(plan),
        "images": images,
        "worker_seconds": round(sum(shard.seconds for shard in done), 3),
        "worker_cpu_seconds": round(sum(shard.cpu_seconds for shard in done), 3),
        "written": [str(out / name) for name in written],
        "skipped": [str(out / name) for name in kept],
        "failed": [{"image": label, "error": message} for label, _, message in failed],
    }
    output.show(document, facts, as_json=as_json)
    failures.fail_with(code for _, code, _ in failed)


def make_plan(request: Request, pieces: Sequence[Piece]) -> Plan:
    """Estimate the cost of an extraction, without loading weights."""
    from kornia_ditf.cli.images import decode_fitting
    from kornia_ditf.preprocess import fitted_size
    from kornia_ditf.projection.stored import Projection
    from kornia_ditf.types.storage import STORES

    spec = request.chosen.spec()
    fitting = request.chosen.fitting(spec)
    tokens: list[int] = []
    for piece in pieces[:: max(1, len(pieces) // _SAMPLES)]:
        for item, content in replace(piece, items=piece.items[:1]).read():
            with suppress(errors.ImageError):
                image = decode_fitting(content, piece.label(item), *fitting)
                height, width = fitted_size((image.shape[2], image.shape[3]), *fitting)
                tokens.append(height * width // spec.pixels_per_token**2)
    count = sum(len(piece.items) for piece in pieces)
    itemsize = STORES[request.store].itemsize
    blocks = max(1, len(request.blocks))
    width = spec.width
    if request.chosen.projection is not None:
        width = Projection.load(request.chosen.projection).width
    map_bytes = sum(tokens) / len(tokens) * width * itemsize * blocks if tokens else None
    return Plan(
        images=count,
        shards=len(pieces),
        image_bytes=sum(piece.size for piece in pieces),
        map_bytes=None if map_bytes is None else round(map_bytes * count),
        weights_bytes=_weights_bytes(request, spec),
        shard_bytes=max((piece.size for piece in pieces), default=0),
    )


def run_pieces(
    pieces: Sequence[Piece],
    request: Request,
    out: Path,
    *,
    address: str | None = None,
    workers: int | None = None,
    cpus: float = 1.0,
    gpus: float | None = None,
) -> Iterator[Shard]:
    """Write the shards of pieces on a cluster, and yield the outcome of each as it is done.

    Args:
        pieces: the images.
        request: what to describe with.
        out: the folder of the shards.
        address: of the Ray cluster; None starts one here.
        workers: maximum number; None is one for each GPU, or without GPUs for each CPU.
        cpus: of each worker.
        gpus: of each worker; None is one where the cluster has any.
    """
    from kornia_ditf.utils.cluster import on_cluster
    from kornia_ditf.utils.sources import Piece

    with on_cluster(address, store_bytes=_STORE_BYTES) as ray:
        data: Any = import_module("ray.data")
        data.DataContext.get_current().enable_progress_bars = False
        there = ray.cluster_resources()
        gpus = float(there.get("GPU", 0) > 0) if gpus is None else gpus
        fitting = there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / (cpus or 1)
        most = workers or max(1, int(fitting))
        if gpus and request.chosen.device is None:
            request = replace(request, chosen=request.chosen.but(device="cuda"))

        def work(some: Sequence[Piece], first: Sequence[Piece] | None) -> Iterator[_Done]:
            rows = data.from_items(
                [{"piece": piece.to_json()} for piece in some], override_num_blocks=len(some)
            )
            shards = rows.map_batches(
                ShardWriter,
                batch_size=1,
                compute=data.ActorPoolStrategy(min_size=1, max_size=min(most, len(some))),
                fn_constructor_args=(request, out, first),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            lost = 0
            for row in shards.iter_rows():
                shard = Shard(**json.loads(row["shard"]))
                yield Piece.from_json(row["piece"]), shard
                lost += 1 if shard.lost else -len(some)
                if lost == _MOST_LOST:
                    return

        try:
            yield from without_deadly_images(pieces, work)
        except ray.exceptions.RayError as error:
            raise errors.DiTFError(
                "the cluster failed at a piece of the work "
                f"({' '.join(str(error).split())[-300:]}); finished files are kept, and the same "
                "command resumes"
            ) from error


def without_deadly_images(
    pieces: Sequence[Piece], work: Callable[..., Iterator[_Done]]
) -> Iterator[Shard]:
    """Run pieces; those at which workers die are run again, without the images that kill one.

    Args:
        pieces: what to run.
        work: takes pieces, and those in whose images massive channels are found, or None to try
            images and write nothing; stops when the first `_MOST_LOST` outcomes are lost.

    Raises:
        DiTFError: workers die whatever they do.
    """
    left, first, again = list(pieces), list(pieces[:_CALIBRATION_PIECES]), False
    done: set[Piece] = set()
    while left:
        lost: list[Piece] = []
        for piece, shard in work(left, first):
            if shard.lost:
                lost.append(piece)
            else:
                done.add(piece)
                yield shard
        left = [piece for piece in left if piece not in done]
        if not left:
            return
        some = lost if done else dict.fromkeys([*first, *lost])
        images = [one for piece in some for one in piece.images()]
        deadly = {one for one, shard in work(images, None) if shard.lost}
        if not done and not 0 < len(deadly) < _MOST_LOST:
            raise errors.DiTFError(
                "workers die at every piece of the work; they may be out of memory: use fewer "
                "--workers, or a smaller --batch or --long-side"
            )
        if again and not deadly:  # together they kill a worker, twice
            deadly = set(images)
        again = not deadly
        for one in filter(deadly.__contains__, images):
            label = one.label(one.items[0])
            yield Shard(failed=[(label, 3, f"cannot describe {label}: {_DEADLY}")])
        left, first = (
            [kept for piece in some if (kept := piece.without(deadly)).items]
            for some in (left, first)
        )


def _check(shard: Shard, done: Sequence[Shard]) -> None:
    """Raise the error that ended a worker, or the difference between two workers."""
    if shard.error is not None:
        code, message = shard.error
        raise failures.fail(message, code)
    if done and shard.made and shard.made != done[0].made:
        names = [name for name in shard.made if shard.made[name] != done[0].made.get(name)]
        raise errors.InvalidArgumentError(
            f"workers differ in {', '.join(names)}: use nodes of the same kind, and set what each "
            "would detect, such as --option massive_channels=[7]"
        )


def _remove_others(out: Path, done: Sequence[Shard]) -> None:
    """Remove the shards of other settings that these replace."""
    from kornia_ditf.types.shards import visible

    names = {shard.name for shard in done}
    for path in visible(out, "*.tar"):
        if path.name not in names and differing_in(path, done[0].made):
            path.unlink()


def _weights_bytes(request: Request, spec: Any) -> int | None:
    from kornia_ditf.backbones.spec import BackboneSpec

    if not isinstance(spec, BackboneSpec):
        return None
    block, dtype = max(request.blocks, default=spec.block), request.chosen.dtype or "float32"
    try:
        planned = request.chosen.plan(spec, block, dtype)
    except errors.DiTFError:  # loading says what is wrong
        return None
    return None if planned is None else planned.held
