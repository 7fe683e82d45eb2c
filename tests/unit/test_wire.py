"""Names that others rely on: stored runs, users' scripts, other versions. They do not change."""

from simgrid_ml import wire

PINNED = {
    "ARTIFACTS": "artifacts",
    "ARTIFACT_INDEX": "artifacts.json",
    "ATTEMPTS": "attempts",
    "ATTRIBUTES": "attributes",
    "CACHE_HOME_VARIABLE": "SIMGRID_ML_CACHE",
    "CANCEL": "cancel",
    "CLUSTERS": "clusters",
    "CODE": "code.tar.gz",
    "ENVIRONMENT": "environment.json",
    "EVENTS": "events.jsonl",
    "FIDELITY": "fidelity.json",
    "GPUS": "gpus.json",
    "GPU_BACKING_VARIABLE": "SIMGRID_ML_GPU_BACKING",
    "GPU_COLLECTIVES_VARIABLE": "SIMGRID_ML_GPU_COLLECTIVES",
    "GPU_DEVICES_VARIABLE": "SIMGRID_ML_GPU_DEVICES",
    "GPU_LEDGERS": "gpus",
    "GPU_LEDGER_VARIABLE": "SIMGRID_ML_GPU_LEDGER",
    "GPU_MEMORY": "gpu-memory.jsonl",
    "HOOKS_VARIABLE": "SIMGRID_ML_HOOKS",
    "LABEL": "simgrid-ml",
    "LAUNCH": "launch.json",
    "LAUNCH_TASKS": "launch",
    "LOCAL_RANK_VARIABLE": "SIMGRID_ML_LOCAL_RANK",
    "LOCK": "lock",
    "LOGS": "logs",
    "MAX_NODES_PER_MPI_RUN": 100,
    "METRICS": "metrics",
    "MODELS": "models",
    "NODES": "nodes",
    "NODE_VARIABLE": "SIMGRID_ML_NODE",
    "OUTPUTS": "outputs",
    "PLACEMENT": "placement.json",
    "POOLS": "pools",
    "PROVENANCE": "provenance.json",
    "PYTHONPATH": "python",
    "RANK_MIN_LIFE_S": 0.3,
    "RANK_VARIABLE": "SIMGRID_ML_RANK",
    "RESERVE": "reserve",
    "RUNS": "runs",
    "RUN_DIR_VARIABLE": "SIMGRID_ML_RUN_DIR",
    "SNAPSHOT_MAX_BYTES": 314_572_800,
    "SNAPSHOT_MAX_FILES": 2000,
    "SOCKET": "control.sock",
    "SPEC": "spec.json",
    "STATE": "state.jsonl",
    "STATE_HOME_VARIABLE": "SIMGRID_ML_HOME",
    "STRICT_CONFIG_VARIABLE": "SIMGRID_ML_STRICT_CONFIG",
    "SUPERVISOR_LOG": "supervisor.log",
    "TASKS": "tasks",
    "TASK_VARIABLE": "SIMGRID_ML_TASK",
    "TMP": "tmp",
    "VERDICTS": "verdicts.json",
    "WORK": "work",
}


def test_no_name_on_the_wire_has_changed() -> None:
    assert {name: getattr(wire, name, None) for name in PINNED} == PINNED


def test_every_name_on_the_wire_is_pinned() -> None:
    assert {name for name in vars(wire) if name.isupper()} == set(PINNED)
    files = [wire.SPEC, wire.STATE, wire.EVENTS, wire.LOCK, wire.SOCKET, wire.CANCEL, wire.CODE]
    files += [wire.WORK, wire.ARTIFACTS, wire.ARTIFACT_INDEX, wire.METRICS, wire.TASKS, wire.TMP]
    assert len(set(files)) == len(files), "two things of a run directory share a name"
