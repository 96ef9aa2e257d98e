"""`kornia-ditf extract`: descriptors of images, one safetensors file each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kornia_ditf.cli import failures, options, output, progress


def extract(
    images: options.Images,
    out: Annotated[
        Path,
        typer.Option(
            parser=options.read_path,
            metavar="FOLDER",
            help="Write here; the folder is made if needed.",
        ),
    ],
    backbone: options.Backbone = None,
    source: options.Source = None,
    block: Annotated[
        list[int] | None,
        typer.Option(
            metavar="K",
            help="Take this block's input, counted from 0; may be repeated.  [default: preset]",
        ),
    ] = None,
    timestep: options.Timestep = None,
    treatment: options.TreatmentName = None,
    long_side: options.LongSide = None,
    tiles: options.Tiles = None,
    ensemble: options.Ensemble = None,
    rows: options.Rows = None,
    prompt: options.Prompt = None,
    seed: options.Seed = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    others: options.Others = None,
    preset: options.Preset = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Describe so many images of one size together.  [default: what suits the device]",
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Store float32, float16, or int8 with a scale per token, a quarter of float32.",
        ),
    ] = "float32",
    half: Annotated[
        bool, typer.Option("--half", hidden=True, help="The same as --store float16.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            parser=options.read_path,
            metavar="FILE",
            help="Also write the tokens of all images as features: hloc's (.h5) or the same as "
            ".npz; keypoints alone in a COLMAP database (.db) or .json.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local (this process), or ray (a cluster).")
    ] = "local",
    ray_address: options.RayAddress = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --engine ray: at most so many workers.  [default: one per GPU, else CPU]",
        ),
    ] = None,
    cpus: Annotated[
        float, typer.Option(metavar="X", min=0, help="With --engine ray: CPUs of each worker.")
    ] = 1.0,
    gpus: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="With --engine ray: GPUs of each worker.  [default: 1 where the cluster has any]",
        ),
    ] = None,
    per_shard: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --engine ray: about so many images each.")
    ] = 64,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --engine ray: the column of Parquet files that holds the images.  "
            "[default: image, or the only one]",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="With --engine ray: say how many images and bytes, and do no more."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write the descriptors of images, one safetensors file each.

    A file holds `descriptors` (D, rows, columns), or `block_K` for each of several blocks, and
    says in its metadata how they were made; equal images and settings give equal bytes. Files that
    are there with the same settings are skipped, so the same command goes on where an interrupted
    one stopped; files of other settings are kept and reported. Massive channels that are not known
    are found on the first four images and discarded in all.
    """
    from kornia_ditf.cli import settings
    from kornia_ditf.cli.describing import Request
    from kornia_ditf.cli.extraction import KeptError, Stream, export_features, name_outputs
    from kornia_ditf.cli.match_folder import check_exports
    from kornia_ditf.errors import CaptureError, ImageError, InvalidArgumentError
    from kornia_ditf.types.storage import STORES
    from kornia_ditf.utils.checks import check_one_of
    from kornia_ditf.utils.files import make_folder, sweep

    paths = list({path.resolve(): path for path in images}.values())
    blocks = sorted(set(block or ()))
    if tiles is not None and len(blocks) > 1:
        raise InvalidArgumentError("--tiles describes one block; give --block once")
    if export is not None:
        if len(blocks) > 1:
            raise InvalidArgumentError("--export writes one block; give --block once")
        check_exports([export], inputs=paths)
    store = "float16" if half else store
    check_one_of("--store", store, STORES)
    check_one_of("--engine", engine, ("local", "ray"))
    given = {
        "block": max(blocks) if blocks else None,
        "timestep": timestep,
        "treatment": treatment,
        "long_side": long_side,
        "tiles": tiles,
        "ensemble": ensemble,
        "rows_per_forward": rows,
        "prompt": prompt,
        "seed": seed,
        "dtype": dtype,
        "device": device,
        "preset": preset,
        **options.read_others(others),
    }
    request = Request(
        backbone=backbone,
        source=source,
        others=others,
        preset=preset,
        blocks=blocks,
        given=given,
        store=store,
        batch=batch,
    )
    if engine == "ray":
        from kornia_ditf.cli.extract_ray import Cluster, extract_on_ray

        if export is not None:
            raise InvalidArgumentError("--export takes files, and --engine ray writes shards")
        cluster = Cluster(address=ray_address, workers=workers, cpus=cpus, gpus=gpus)
        extract_on_ray(
            request,
            paths,
            out,
            cluster,
            per_shard=per_shard,
            column=column,
            overwrite=overwrite,
            plan_only=plan,
            as_json=as_json,
        )
        return
    make_folder(out)
    sweep(out)
    spec = request.find_spec()
    stages = progress.Stages()
    with stages.stage("load"):
        describer = request.load(spec)
    descriptor, blocks = describer.descriptor, describer.blocks
    with stages.stage("find massive channels"):
        describer.find_channels((str(path), None) for path in paths)
    made = describer.made()
    stream = Stream(
        describer=describer,
        made=made,
        targets={path: out / name for path, name in name_outputs(paths).items()},
        overwrite=overwrite,
    )
    done = stream.done
    try:
        written = progress.track(stream.run(paths), "extract", len(paths))
        for (path, _), writing in written:
            try:
                writing.result()
            except (ImageError, InvalidArgumentError, CaptureError, KeptError) as error:
                failures.say_error(str(error))
                done.failed.append((path, error))
    except KeyboardInterrupt as interrupt:
        count = len(done.written) + len(done.skipped)
        raise failures.fail(
            f"interrupted with {count} of {len(paths)} images done; the same command goes on",
            failures.interrupt_code(interrupt),
        ) from interrupt
    exported = export_features(export, [*done.written, *done.skipped])
    found = [
        (
            f"discarded {number}" if len(blocks) > 1 else "discarded",
            settings.describe_channels_found(
                describer.channels.get(str(number), []), describer.origin
            ),
        )
        for number in blocks
    ]
    facts = output.Facts(
        [
            *settings.preset_facts(backbone, spec, descriptor),
            *found,
            ("written", f"{len(done.written)} of {len(paths)} images, in {out}"),
            *(("exported", each) for each in exported),
            *done.remarks(),
        ]
    )
    document = {**made, **done.as_values(), "exported": exported}
    output.show(output.Result(document, [facts]), as_json=as_json)
    if done.failed:
        codes = {failures.exit_code(error) for _, error in done.failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)
