"""The pool of a cluster as far as it needs no nodes: what it makes of its cluster, its errors."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from simgrid_ml.engine import pool as pool_module
from simgrid_ml.engine import pools
from simgrid_ml.engine.pool import Pool, usual_kind
from simgrid_ml.environments.build import BuiltEnvironment, read_by_nodes
from simgrid_ml.environments.cache import Cache
from simgrid_ml.errors import NodeError, SpecError
from simgrid_ml.record.store import RunStore
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.value import from_plain, to_plain


def put(store: RunStore, **fields: Any) -> None:
    spec = from_plain({"name": "four", **fields}, ClusterSpec, "cluster")
    store.put_cluster(spec.name, to_plain(spec))


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(str(tmp_path))


@pytest.fixture
def pool(store: RunStore) -> Pool:
    put(store)
    os.makedirs(pools.pool_folder(store, "four"))

    async def make() -> Pool:
        return Pool(pools.pool_folder(store, "four"))

    return asyncio.run(make())


def test_the_errors_of_a_cluster_end_when_it_changes_or_its_nodes_come_up(
    store: RunStore, pool: Pool
) -> None:
    error = NodeError("no agent today", remedy="none").to_json()
    pool.note(error)
    pool.read_spec()
    assert [one["cause"] for one in pool.errors] == ["no agent today"]
    put(store, max_nodes=3)
    pool.read_spec()
    assert pool.errors == []
    pool.note(error)
    pool.errors_end()
    assert pool.status()["errors"] == []


def test_a_changed_cluster_counts_also_if_it_can_have_no_minimum(
    store: RunStore, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ClusterSpec) -> None:
        raise SpecError("no nodes can be kept warm", remedy="none")

    monkeypatch.setattr(pool_module, "usual_kind", refuse)
    put(store, max_nodes=7, min_nodes=1)
    pool.read_spec()
    assert pool.scale.max_nodes == 7
    assert [one["cause"] for one in pool.errors] == ["no nodes can be kept warm"]


def test_all_built_environments_are_read_by_nodes_of_one_kind(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def built(folder: Path, lock_hash: str) -> BuiltEnvironment:
        return BuiltEnvironment(
            python=str(folder / "bin" / "python"),
            bin=str(folder / "bin"),
            lock_hash=lock_hash,
            cached=True,
            substitutions=(),
            packages={},
        )

    any_of_them = read_by_nodes(None, cache)
    for name in ("a", "b"):
        assert read_by_nodes(built(cache.env(name), name), cache) == any_of_them
    assert Path(any_of_them[0]).is_dir(), "it can be mounted before anything is built"
    assert cache.env("a").is_relative_to(any_of_them[0])
    foreign = built(tmp_path / "mine", "")
    assert read_by_nodes(foreign, cache) == (*any_of_them, str(tmp_path / "mine"))


@pytest.mark.usefixtures("docker_engine")
def test_a_size_with_a_network_rate_has_no_warm_nodes_and_says_why() -> None:
    asked = {"name": "four", "backend": "docker", "min_nodes": 1}
    with pytest.raises(SpecError) as refused:
        usual_kind(from_plain({**asked, "vm_size": "Standard_D2_v2"}, ClusterSpec, "cluster"))
    assert refused.value.cause.startswith("Standard_D2_v2 has a network rate")
    assert "Standard_NC6" in refused.value.remedy
    size = {"vm_size": "Standard_NC6", "scale": 0.01}
    kind = usual_kind(from_plain({**asked, **size}, ClusterSpec, "cluster"))
    assert kind.warm and kind.visible == read_by_nodes(None)
