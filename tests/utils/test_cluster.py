"""Work on several nodes of a Ray cluster gives the same bytes when one of them is lost."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from blobs import write_blobs
from study_files import study_file

from kornia_ditf.cli.describing import Request
from kornia_ditf.cli.extract_ray import run_pieces, without_deadly_images
from kornia_ditf.cli.options import Chosen
from kornia_ditf.cli.shards import Shard, ShardWriter
from kornia_ditf.errors import DiTFError, InvalidArgumentError
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.run.ray_cluster import RayCluster
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.utils.cluster import on_cluster
from kornia_ditf.utils.progress import Quiet
from kornia_ditf.utils.sources import Item, Piece, list_pieces

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, of itself
_STORE = 80 * 2**20
_FIND_DEAD_NODES_SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}


class Nodes:
    """A head that does no work, and nodes of one CPU that can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayNodes

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _FIND_DEAD_NODES_SOON}
        self.cluster = RayNodes(
            initialize_head=True, head_node_args={**head, "object_store_memory": _STORE}
        )
        self.nodes: list[Any] = []
        self.killed = 0

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=_STORE))

    def kill(self) -> None:
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        self.killed += 1


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        nodes = Nodes()
        nodes.add()
        ray.init(nodes.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield nodes
        ray.shutdown()
        while nodes.nodes:
            nodes.kill()
        nodes.cluster.shutdown()


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_an_address_without_a_cluster_says_how_to_start_one(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(InvalidArgumentError, match=r"`ray start --head`, or leave out --ray-addr"),
        on_cluster(address),
    ):
        pass


@pytest.mark.slow
def test_extraction_writes_every_image_once_when_a_node_is_lost(
    nodes: Nodes, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for number in range(12):
        write_blobs(folder / f"{number}.png", generator)
    settings = {"backbone": str(tiny_checkpoint("nano")), "long_side": 48, "ensemble": 200}
    request = Request(Chosen(settings), [], "float16")
    pieces, _ = list_pieces([folder], 1)
    outs = [tmp_path / name for name in ("lost", "undisturbed")]
    for out in outs:
        out.mkdir()
    nodes.add()
    done = []
    for shard in run_pieces(pieces, request, outs[0], workers=2):
        assert shard.error is None and not shard.failed
        done.append(shard)
        if len(done) == 3:
            nodes.kill()
    writer = ShardWriter(request, outs[1], pieces[:4])
    expected = [writer.write(piece) for piece in pieces]
    assert sorted(each.name for each in done) == sorted(each.name for each in expected)
    assert sum(each.images for each in done) == 12
    lost, undisturbed = ({p.name: p.read_bytes() for p in out.iterdir()} for out in outs)
    assert lost == undisturbed


@pytest.mark.slow
def test_an_image_that_kills_its_worker_is_named_and_left_out(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mortal(ShardWriter):  # in here, so that Ray sends its code
        """A writer without a model, whose process an image kills, as a faulty decoder may."""

        tries = 1

        def _tried(self, piece: Piece) -> Shard:
            if any(item.name == "deadly" for item in piece.items):
                os.kill(os.getpid(), signal.SIGKILL)
            return Shard(name=piece.items[0].name, images=len(piece.items), made={"name": "none"})

    monkeypatch.setattr("kornia_ditf.cli.extract_ray.ShardWriter", Mortal)
    pieces = [piece_of("deadly", "a"), piece_of("b", "c")]
    done = list(run_pieces(pieces, Request(Chosen({}), [], "float32"), tmp_path, workers=1))
    assert {each.name: each.images for each in done if each.name} == {"a": 1, "b": 2}
    ((label, code, message),) = [failed for each in done for failed in each.failed]
    assert (label, code) == ("pictures/deadly", 3) and f"{label}: its worker dies" in message
    assert not list(tmp_path.iterdir())


def piece_of(*names: str) -> Piece:
    return Piece("pictures", tuple(Item(name, 0, 0) for name in names))


@pytest.mark.parametrize("deadly", [{"a"}, {"c", "f"}, {"a", "e", "f"}])
def test_deadly_images_are_found_wherever_they_are(deadly: set[str]) -> None:
    pieces = [piece_of(*names) for names in ("ab", "cd", "ef", "gh", "i")]

    def work(some: list[Piece], first: list[Piece] | None) -> Iterator[tuple[Piece, Shard]]:
        for piece in some:  # the channels are found in the very first images
            seen = [item.name for item in (*(first or [piece])[0].items[:1], *piece.items)]
            names = "".join(item.name for item in piece.items)
            yield piece, Shard(name=names, lost=not deadly.isdisjoint(seen))

    done = list(without_deadly_images(pieces, work))
    assert {
        label.removeprefix("pictures/") for each in done for label, _, _ in each.failed
    } == deadly
    assert sorted("".join(each.name for each in done)) == sorted(set("abcdefghi") - deadly)


def test_work_that_kills_workers_only_together_is_left_out_and_all_of_it_is_an_error() -> None:
    pieces = [piece_of("a", "b"), piece_of("c")]

    def work(some: list[Piece], first: object) -> Iterator[tuple[Piece, Shard]]:
        return ((piece, Shard(name="c", lost=len(piece.items) > 1)) for piece in some)

    done = list(without_deadly_images(pieces, work))
    assert [each.name for each in done if each.name] == ["c"]
    assert [label for each in done for label, _, _ in each.failed] == ["pictures/a", "pictures/b"]
    with pytest.raises(DiTFError, match="workers die at every piece"):
        list(without_deadly_images(pieces[:1], work))


class KillsOnce(Quiet):
    """A watcher that kills a node when the first images are described."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.killed = nodes, False

    def advance(self, count: int) -> None:
        if not self.killed:
            self.killed = True
            self.nodes.kill()


@pytest.mark.slow
def test_a_study_has_the_records_of_one_process_when_a_node_is_lost(
    nodes: Nodes, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    study = read_study(study_file(tmp_path, tiny_checkpoint("nano"), pairs=8))
    nodes.add()
    watcher = KillsOnce(nodes)
    engine = partial(RayCluster, workers=2, cpus=1)
    path = run_study(study, tmp_path / "ray", engine=engine, watcher=watcher)
    assert watcher.killed
    expected = run_study(study, tmp_path / "local")
    assert path.read_bytes() == expected.read_bytes()
    assert pq.read_table(path).num_rows == 8 * 4
