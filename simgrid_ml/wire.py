"""Every file name, variable, label and number that somebody outside this process can see.

Changing one of these breaks stored runs or users' scripts, so they live in one place and
``tests/unit/test_wire.py`` pins them.
"""

from __future__ import annotations

# -- the run directory (simgrid_ml.record) -------------------------------------------------
SPEC = "spec.json"  # job, cluster and identity; never changes after prepare
PROVENANCE = "provenance.json"  # who submitted, from where, with what
ENVIRONMENT = "environment.json"  # what was built or found, and what was substituted
PLACEMENT = "placement.json"  # which task on which node
LAUNCH = "launch.json"  # what every task runs: argv, environment, log
LAUNCH_TASKS = "launch"  # the same in a file per task, as node/rank.py and rank.c read it
STATE = "state.jsonl"
EVENTS = "events.jsonl"
LOCK = "lock"  # held by the supervisor as long as it lives
SOCKET = "control.sock"  # agents, rsh clients and `simgrid-ml exec` talk to the supervisor here
CANCEL = "cancel"  # its presence asks for cancellation
CODE = "code.tar.gz"  # sealed snapshot of the source folder
WORK = "work"  # working directory of the ranks
ARTIFACTS = "artifacts"  # what the run history keeps, under Azure's names
ARTIFACT_INDEX = "artifacts.json"  # path, bytes, sha256; written once, when the run is sealed
METRICS = "metrics"  # one journal per writer
ATTRIBUTES = "attributes"  # tags, properties, name: one journal per writer
TASKS = "tasks"  # what each task reported: one journal per task
VERDICTS = "verdicts.json"
FIDELITY = "fidelity.json"  # what was measured of links, host and nodes, before and during
GPUS = "gpus.json"  # what is behind the nodes' GPUs, and why
GPU_LEDGERS = "gpus"  # a file per node: its GPUs, and who uses how much of them
GPU_MEMORY = "gpu-memory.jsonl"  # bytes taken of every GPU, over time
TMP = "tmp"  # TMPDIR of everything in the run
NODES = "nodes"  # in TMP: every node's address and name, for the client that stands in for ssh
PYTHONPATH = "python"  # links to this package and to the azureml stand-in
RESERVE = "reserve"  # given up at the end, so that a full disk has room for the last words
SUPERVISOR_LOG = "supervisor.log"
ATTEMPTS = "attempts"  # what is left of attempts whose nodes were pre-empted; also in ARTIFACTS

OUTPUTS = "outputs"  # ./outputs and ./logs of the user's working directory: Azure's special folders
LOGS = "logs"

# -- the workspace root --------------------------------------------------------------------
RUNS = "runs"
CLUSTERS = "clusters"
MODELS = "models"
POOLS = "pools"  # one folder per stored cluster, for the process that owns its nodes
STATE_HOME_VARIABLE = "SIMGRID_ML_HOME"  # workspaces: runs, clusters, models
CACHE_HOME_VARIABLE = "SIMGRID_ML_CACHE"  # environments and wheels, shared by all workspaces
STRICT_CONFIG_VARIABLE = "SIMGRID_ML_STRICT_CONFIG"  # Workspace.from_config() needs a file

# -- variables inside a node ---------------------------------------------------------------
RUN_DIR_VARIABLE = "SIMGRID_ML_RUN_DIR"
NODE_VARIABLE = "SIMGRID_ML_NODE"
TASK_VARIABLE = "SIMGRID_ML_TASK"
HOOKS_VARIABLE = "SIMGRID_ML_HOOKS"  # what of old releases is restored: names, comma separated
GPU_LEDGER_VARIABLE = "SIMGRID_ML_GPU_LEDGER"  # path of the node's ledger
GPU_BACKING_VARIABLE = "SIMGRID_ML_GPU_BACKING"  # what is behind the node's GPUs: TIME_SLICED, …
GPU_DEVICES_VARIABLE = "SIMGRID_ML_GPU_DEVICES"  # the part of a real GPU behind each
GPU_COLLECTIVES_VARIABLE = "SIMGRID_ML_GPU_COLLECTIVES"  # by nccl, nccl-by-rank or gloo
RANK_VARIABLE = "SIMGRID_ML_RANK"  # of a task on a node with GPUs, whatever its launcher calls it
LOCAL_RANK_VARIABLE = "SIMGRID_ML_LOCAL_RANK"

# -- labels and processes ------------------------------------------------------------------
LABEL = "simgrid-ml"

# -- timing --------------------------------------------------------------------------------
RANK_MIN_LIFE_S = 0.3
"""No rank ends sooner after its start: Open MPI 5.0.11's launcher loses very short commands
over several nodes (19 of 42 launches of ``true`` hung, 0 of 80 living 0.3 s)."""

# -- limits of the emulated service --------------------------------------------------------
SNAPSHOT_MAX_BYTES = 300 * 2**20
SNAPSHOT_MAX_FILES = 2000
MAX_NODES_PER_MPI_RUN = 100
