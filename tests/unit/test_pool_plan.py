"""Who gets which nodes, as a pure function: the promises hold for whatever there is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.engine.pool_plan import (
    Kind,
    Node,
    Plan,
    Scale,
    Waiting,
    in_fair_order,
    next_wake_s,
    plan,
)
from simgrid_ml.spec.capacity import Capacity

NOW = 1000.0
ONE = Kind(backend="process", capacity=Capacity(1.0, None, None, 1), joins=True)
OTHER = Kind(backend="process", capacity=Capacity(1.0, None, None, 2), joins=True)
FOUR = Scale(0, 4, 1800)
APART = Kind(backend="docker", capacity=Capacity(1.0, None, None, 1), joins=False)


def waiting(run: str, nodes: int, created_s: float = 0.0, kind: Kind = ONE) -> Waiting:
    return Waiting(run, submitter=run[0], nodes=nodes, kind=kind, created_s=created_s)


def node(number: int, state: str = "idle", kind: Kind = ONE, since_s: float = NOW) -> Node:
    return Node(f"node{number}", kind, network=1, state=state, idle_since_s=since_s)


def decide(
    nodes: list[Node],
    runs: list[Waiting],
    in_use: dict[str, int] | None = None,
    scale: Scale = FOUR,
    usual: Kind | None = ONE,
) -> Plan:
    return plan(nodes, runs, in_use or {}, scale, NOW, usual)


# -- one run -------------------------------------------------------------------------------


def test_the_first_run_has_its_nodes_started_from_node0_on() -> None:
    made = decide([], [waiting("a", 2)])
    assert made == Plan(start=[(ONE, ("node0", "node1"))], sure=["a"], next="a")


def test_idle_nodes_are_given_lowest_first() -> None:
    there = [node(3), node(1), node(0, "running")]
    assert decide(there, [waiting("a", 2)]) == Plan(give=[("a", ("node1", "node3"))])


def test_only_what_is_missing_is_started() -> None:
    there = [node(0), node(1, "preparing")]
    assert decide(there, [waiting("a", 3)]) == Plan(start=[(ONE, ("node2",))], sure=["a"], next="a")


def test_nothing_is_started_twice_while_nodes_are_on_their_way() -> None:
    there = [node(0, "preparing"), node(1, "preparing")]
    assert decide(there, [waiting("a", 2)]) == Plan(sure=["a"], next="a")


def test_idle_nodes_of_another_kind_make_room() -> None:
    there = [node(n, kind=OTHER, since_s=NOW - n) for n in range(4)]
    made = decide(there, [waiting("a", 2)])
    assert made == Plan(end=["node3", "node2"], next="a"), "those that are idle for longest"
    leaving = [replace(one, state="leaving") if one.name in made.end else one for one in there]
    assert decide(leaving, [waiting("a", 2)]) == Plan(next="a"), "no others while these leave"
    assert decide(there[:2], [waiting("a", 2)]).start == [(ONE, ("node2", "node3"))]


def test_nodes_that_do_not_join_come_from_one_network() -> None:
    there = [node(0, kind=APART), replace(node(1, kind=APART), network=2)]
    made = decide(there, [waiting("a", 2, kind=APART)])
    assert made.start == [(APART, ("node2", "node3"))] and not made.give
    assert decide(there, [waiting("a", 1, kind=APART)]).give == [("a", ("node0",))]


# -- several runs --------------------------------------------------------------------------


def test_nobody_overtakes_who_waits_for_nodes_of_others() -> None:
    there = [node(0), node(1, "running"), node(2, "running"), node(3, "running")]
    assert decide(there, [waiting("a", 2, 0), waiting("b", 1, 1)]) == Plan(next="a")


def test_who_is_next_uses_the_fewest_nodes_then_is_the_oldest() -> None:
    runs = [waiting("a", 1, 0), waiting("b", 1, 2), waiting("c", 1, 1)]
    assert [run.run for run in in_fair_order(runs, {"a": 1})] == ["c", "b", "a"]


def test_a_stream_of_small_jobs_does_not_starve_a_large_one() -> None:
    """A has one node for hours and waits for three; B always has the next small job at hand."""
    large = waiting("a", 3, created_s=0)
    there = [node(0, "running"), *(node(n, "running") for n in (1, 2, 3))]
    made = decide(there, [large, waiting("b0", 1, 1)], {"a": 1, "b": 3})
    assert made.next == "a" and not made.give
    for ended in (1, 2, 3):  # one after another, B's jobs end
        there[ended] = node(ended)
        runs = [large, *(waiting(f"b{n}", 1, n) for n in range(1, 4))]
        made = plan(there, runs, {"a": 1, "b": 3 - ended}, FOUR, NOW, ONE, made.next)
        assert [run for run, _ in made.give] == (["a"] if ended == 3 else []), ended
    assert made.next in ("b1", "b2", "b3"), "from now on it is another one's turn"


def test_nodes_come_for_all_who_wait() -> None:
    made = decide([], [waiting("a", 2, 0), waiting("b", 2, 1)])
    assert made.start == [(ONE, ("node0", "node1")), (ONE, ("node2", "node3"))]


# -- scale ---------------------------------------------------------------------------------


def test_nodes_end_when_idle_for_long_enough_but_for_the_minimum() -> None:
    old = [node(n, since_s=NOW - 100 + n) for n in range(3)]
    assert decide(old, [], scale=Scale(1, 4, 99)) == Plan(end=["node0", "node1"])
    assert decide(old, [], scale=Scale(0, 4, 200)) == Plan()
    assert decide(old[:1], [], scale=Scale(0, 4, 0)).end == ["node0"]


def test_the_minimum_is_started() -> None:
    assert decide([], [], scale=Scale(2, 4, 0)).start == [(ONE, ("node0", "node1"))]
    assert decide([node(0, "leaving")], [], scale=Scale(2, 2, 0)).start == [(ONE, ("node1",))]
    assert decide([], [], scale=Scale(2, 4, 0), usual=None) == Plan()


def test_a_smaller_maximum_ends_what_is_idle_above_it() -> None:
    there = [node(n, "running" if n < 2 else "idle") for n in range(4)]
    assert decide(there, [], scale=Scale(0, 3, 1800)).end == ["node2"]


def test_the_next_look_is_when_a_node_is_idle_for_long_enough() -> None:
    there = [node(0, since_s=NOW - 5), node(1, since_s=NOW - 50)]
    assert next_wake_s(there, Scale(0, 4, 60), NOW) == NOW + 10
    assert next_wake_s(there, Scale(2, 4, 60), NOW) is None
    assert next_wake_s(there, Scale(0, 4, 3), NOW) is None, "what is overdue is kept for a run"


# -- whatever there is ---------------------------------------------------------------------

states = st.sampled_from(["idle", "running", "preparing", "leaving"])
kinds = st.sampled_from([ONE, OTHER, APART])


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Node], list[Waiting], dict[str, int], Scale]:
    most = draw(st.integers(1, 6))
    there = [
        Node(f"node{n}", draw(kinds), draw(st.integers(0, 2)), draw(states), NOW - draw(AGES))
        for n in draw(st.sets(st.integers(0, most - 1)))
    ]
    runs = [
        Waiting(f"run{n}", draw(st.sampled_from("abc")), draw(st.integers(1, most)), draw(kinds), n)
        for n in range(draw(st.integers(0, 5)))
    ]
    used = {name: draw(st.integers(0, 3)) for name in "abc"}
    return there, runs, used, Scale(draw(st.integers(0, most)), most, draw(st.integers(0, 50)))


AGES = st.integers(0, 100)


@given(situations())
def test_every_plan_keeps_the_promises(
    case: tuple[list[Node], list[Waiting], dict[str, int], Scale],
) -> None:
    there, runs, used, scale = case
    made = plan(there, runs, used, scale, NOW, ONE)
    by_name = {one.name: one for one in there}
    by_run = {run.run: run for run in runs}
    given_names = [name for _, names in made.give for name in names]
    started = [name for _, names in made.start for name in names]
    assert len(set(given_names)) == len(given_names), "no node goes to two runs"
    assert all(by_name[name].state == "idle" for name in [*given_names, *made.end])
    assert not set(given_names) & set(made.end)
    assert not set(started) & set(by_name) and len(set(started)) == len(started)
    assert len(there) + len(started) <= max(scale.max_nodes, len(there)), "never above the maximum"
    for run, names in made.give:
        assert len(names) == by_run[run].nodes
        assert all(by_name[name].kind == by_run[run].kind for name in names)
        if not by_run[run].kind.joins:
            assert len({by_name[name].network for name in names}) == 1
    order = [run.run for run in in_fair_order(runs, used)]
    left = [run for run in order if run not in dict(made.give)]
    if left and order.index(left[0]) < max((order.index(r) for r, _ in made.give), default=-1):
        first = by_run[left[0]]  # somebody went before: only if all the first needs is on its way
        coming = [n for n in there if n.state in ("preparing", "idle") and n.kind == first.kind]
        mine = sum(len(names) for kind, names in made.start if kind == first.kind)
        assert len(coming) + mine >= first.nodes


@given(situations())
def test_a_run_that_fits_the_cluster_gets_its_turn(
    case: tuple[list[Node], list[Waiting], dict[str, int], Scale],
) -> None:
    """Let time pass: every node that is asked to does what it is asked; all runs get nodes."""
    there, runs, used, scale = case
    nodes = {one.name: one for one in there}
    left = {run.run: run for run in runs}
    network = 10
    for _ in range(60):
        if not left:
            return
        made = plan(list(nodes.values()), list(left.values()), used, scale, NOW, None)
        for run, names in made.give:
            del left[run]
            for name in names:
                nodes[name] = replace(nodes[name], state="running")
        for name in made.end:
            nodes[name] = replace(nodes[name], state="leaving")
        for kind, names in made.start:
            network += 1
            for name in names:
                nodes[name] = Node(name, kind, network, "preparing")
        if not (made.give or made.end or made.start):  # time passes
            for name, one in list(nodes.items()):
                if one.state == "leaving":
                    del nodes[name]
                else:
                    nodes[name] = replace(one, state="idle", idle_since_s=NOW)
    raise AssertionError(f"still waiting: {left}")
