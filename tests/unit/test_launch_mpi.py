"""The one mpirun: word for word, as what each word does has been measured."""

from hypothesis import given
from hypothesis import strategies as st

from simgrid_ml.launch import direct, mpi
from simgrid_ml.launch.plan import LaunchPlan, Tools
from simgrid_ml.spec.cluster import ClusterSpec
from simgrid_ml.spec.job import JobSpec, Mpi, Plain
from simgrid_ml.spec.placement import HostInventory, place

TOOLS = Tools(
    rank_command=("/opt/rank",),
    run_dir="/runs/r 1",
    rsh_name="the-rsh",
    interface="lo",
    is_root=False,
)


def planned(nodes: int, per_node: int, cpus: int = 2, tools: Tools = TOOLS) -> LaunchPlan:
    job = JobSpec(
        source="/s",
        entry_script="t.py",
        arguments=("a b", "$X"),
        distribution=Mpi(nodes=nodes, processes_per_node=per_node),
    )
    placement = place(job, ClusterSpec(name="c", max_nodes=100), HostInventory(cpus, 2**30))
    return mpi.plan(job, placement, tools)


def test_two_by_two_is_this_command() -> None:
    plan = planned(2, 2)
    (command,) = plan.commands
    assert (command.name, command.node, command.log) == ("mpirun", "node0", "mpirun")
    assert command.argv == (
        *("mpirun", "--leave-session-attached"),
        *("--prtemca", "plm", "ssh"),
        *("--prtemca", "plm_ssh_agent", "the-rsh"),
        *("--prtemca", "plm_ssh_no_tree_spawn", "1"),
        *("--prtemca", "plm_ssh_num_concurrent", "128"),
        *("--prtemca", "prte_do_not_resolve", "1"),
        *("--prtemca", "prte_silence_shared_fs", "1"),
        *("--mca", "btl", "self,sm,tcp"),
        *("--mca", "pml", "ob1"),
        *("--mca", "btl_tcp_if_include", "lo"),
        *("--mca", "mpi_yield_when_idle", "1"),
        *("--bind-to", "none"),
        *("--map-by", "ppr:2:node:oversubscribe"),
        *("--host", "node0:2,node1:2"),
        *("-np", "4"),
        *("/opt/rank", "/runs/r 1"),
    )
    assert plan.decisive == {"mpirun"}
    assert plan.abort_on_error


def test_ranks_spin_when_they_have_a_core_each() -> None:
    (command,) = planned(2, 2, cpus=4).commands
    assert command.argv[command.argv.index("mpi_yield_when_idle") + 1] == "0"


def test_mpirun_is_allowed_to_be_root_only_for_root() -> None:
    as_root = Tools(**{**vars(TOOLS), "is_root": True})
    assert "--allow-run-as-root" in planned(1, 1, tools=as_root).commands[0].argv
    assert "--allow-run-as-root" not in planned(1, 1).commands[0].argv


@given(st.integers(1, 100), st.integers(1, 16))
def test_the_hosts_have_as_many_slots_as_there_are_ranks(nodes: int, per_node: int) -> None:
    argv = planned(nodes, per_node).commands[0].argv
    hosts = [entry.split(":") for entry in argv[argv.index("--host") + 1].split(",")]
    assert sum(int(slots) for _, slots in hosts) == nodes * per_node
    assert int(argv[argv.index("-np") + 1]) == nodes * per_node
    assert [name for name, _ in hosts] == [f"node{n}" for n in range(nodes)]


@given(st.integers(1, 100), st.integers(1, 16))
def test_nothing_of_the_user_s_passes_through_mpirun(nodes: int, per_node: int) -> None:
    argv = planned(nodes, per_node).commands[0].argv
    assert not {"t.py", "a b", "$X", "/s"} & set(argv)


def test_a_plain_job_is_one_decisive_command_per_node() -> None:
    job = JobSpec(source="/s", entry_script="t.py", distribution=Plain(nodes=2))
    placement = place(job, ClusterSpec(name="c"), HostInventory(1, 1))
    plan = direct.plan(job, placement, TOOLS)
    assert [(one.name, one.node, one.argv) for one in plan.commands] == [
        ("rank-0", "node0", ("/opt/rank", "/runs/r 1", "rank-0")),
        ("rank-1", "node1", ("/opt/rank", "/runs/r 1", "rank-1")),
    ]
    assert plan.decisive == {"rank-0", "rank-1"}
    assert not plan.abort_on_error


def test_a_variable_of_the_job_replaces_adds_or_takes_away_a_setting() -> None:
    job = JobSpec(
        source="/s",
        entry_script="t.py",
        distribution=Mpi(nodes=2),
        variables={
            "SIMGRID_ML_MCA_btl": "self,tcp",
            "SIMGRID_ML_MCA_coll": "^han",
            "SIMGRID_ML_MCA_pml": "",
            "SIMGRID_ML_MCA_bind_to": "core",
        },
    )
    plan = mpi.plan(job, place(job, ClusterSpec(name="c"), HostInventory(2, 2**30)), TOOLS)
    argv = plan.commands[0].argv
    given_mca = {argv[i + 1]: argv[i + 2] for i, word in enumerate(argv) if word == "--mca"}
    assert given_mca["btl"] == "self,tcp"
    assert given_mca["coll"] == "^han"
    assert "pml" not in given_mca
    assert argv[argv.index("--bind-to") + 1] == "core"
    assert "bind_to" not in given_mca
    assert plan.settings["bind-to"] == "core"


def test_an_mpirun_of_a_script_finds_the_settings_in_its_environment() -> None:
    given_by_job = {"SIMGRID_ML_MCA_coll": "^han", "SIMGRID_ML_MCA_pml": "", "OTHER": "x"}
    assert mpi.node_variables(given_by_job, "eth0", is_root=False) == {
        "OMPI_MCA_btl": "self,sm,tcp",
        "OMPI_MCA_btl_tcp_if_include": "eth0",
        "OMPI_MCA_coll": "^han",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "PRTE_MCA_prte_do_not_resolve": "1",
        "PRTE_MCA_prte_silence_shared_fs": "1",
    }
    as_root = mpi.node_variables({}, "lo", is_root=True)
    assert as_root["OMPI_ALLOW_RUN_AS_ROOT"] == as_root["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
