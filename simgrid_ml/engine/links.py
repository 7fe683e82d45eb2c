"""The links of a run: checked when it is submitted, shown and changed while it is live.

The second is what ``simgrid-ml link`` asks over the run's control socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from simgrid_ml.backends.base import Backend, ShapesLinks
from simgrid_ml.errors import NodeError, NotFoundError, PlacementError, SimgridError
from simgrid_ml.spec.capacity import Capacity
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.links import check_names, describe
from simgrid_ml.spec.value import to_plain

if TYPE_CHECKING:
    from simgrid_ml.network.wires import Wires

__all__ = ["LiveLinks", "check_links"]


def check_links(
    backend: Backend, cluster: ClusterSpec, nodes: tuple[str, ...], capacity: Capacity
) -> None:
    """Refuse links that cannot be had, before anything exists.

    Raises:
        SpecError: they name nodes that the cluster never has.
        PlacementError: this host, or the backend, cannot do what is asked for.
    """
    if cluster.links is None:
        return
    check_names(cluster.links, cluster.max_nodes)
    if not isinstance(backend, ShapesLinks):
        raise PlacementError(
            f"the backend {cluster.backend} cannot shape the links between its nodes",
            remedy="use the backend process or docker, or leave the links out",
        )
    backend.choose_links(cluster.links, nodes, capacity)


class LiveLinks:
    """The links of a run whose nodes are up.

    Args:
        backend: where the nodes are.
        run_id: of the run.
        log: appends to the run's events.
    """

    def __init__(self, backend: Backend, run_id: str, log: Callable[..., None]) -> None:
        self._wires = backend.wires(run_id) if isinstance(backend, ShapesLinks) else None
        self._log = log

    @property
    def wires(self) -> Wires | None:
        """None: nothing is shaped."""
        return self._wires

    def to_json(self) -> dict[str, Any] | None:
        """For the run's record; None: nothing is shaped."""
        return None if self._wires is None else self._wires.to_json()

    def first_cause(self, lost: NodeError) -> NodeError:
        """Why nodes were lost: nothing holds them when what connects them has ended."""
        code = None if self._wires is None else self._wires.end_code
        if code is None:
            return lost
        return NodeError(
            f"the relay that connects the nodes ended with code {code}",
            evidence=lost.cause,
            remedy="something killed it, or the host ran out of memory: `dmesg` may tell; submit "
            "again",
        )

    async def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a client: change the link ``target``, or without one show them all."""
        try:
            wires = self._shaped()
            if message.get("target") is not None:
                await self._set(wires, message["target"], message["words"])
            return {"network": wires.to_json(), "cables": await wires.counters()}
        except SimgridError as error:
            return {"error": error.to_json()}

    async def _set(self, wires: Wires, target: str, words: Mapping[str, Any]) -> None:
        link = await wires.set(target, words)
        said = {key: value for key, value in words.items() if value is not None}
        self._log("link-set", target=target, asked=said, link=to_plain(link), text=describe(link))

    def _shaped(self) -> Wires:
        if self._wires is None:
            raise NotFoundError(
                "the links of this run are not shaped, so they cannot be changed",
                remedy="say so when it starts: `simgrid-ml run --rate 1Gbit …`, or `links:` of the "
                "cluster",
            )
        return self._wires
