"""The demo's driver scripts, as a user would write them for Azure ML, and what they train."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import simgrid_ml
from simgrid_ml.errors import UsageError
from simgrid_ml.spec.gpus import gpu_model
from simgrid_ml.spec.vm_sizes import VmSize
from simgrid_ml.spec.vm_sizes import vm_size as find_size

__all__ = ["SCRIPTS", "SOURCE", "TAIL", "Workload", "workload"]

SOURCE = os.path.join(os.path.dirname(simgrid_ml.__file__), "workloads", "digits")
"""The folder of the training scripts."""
CLUSTER = "demo"
SIZE = "STANDARD_D2_V2"
EXPERIMENT = "digits"

DRIVER = """\
from azureml.core import Experiment, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.runconfig import {configuration_class}
from azureml.train.dnn import {estimator}

workspace = Workspace.local()  # or Workspace.from_config()
configuration = AmlCompute.provisioning_configuration(
    {cluster}
)
cluster = ComputeTarget.create(workspace, "{cluster_name}", configuration)
estimator = {estimator}(
    source_directory={source},
    entry_script="{entry_script}",
    script_params={{"--epochs": {epochs}}},
    compute_target=cluster,
    node_count={nodes},
    distributed_training={distribution},
    framework_version="{framework_version}",{use_gpu}
    conda_packages=["scikit-learn"],
)
run = Experiment(workspace, "{experiment}").submit(estimator)
"""

TAIL = """\
run.wait_for_completion(show_output=True)
print(run.get_metrics())
"""


@dataclass(frozen=True)
class Framework:
    """What the scripts train with.

    Attributes:
        name: of the framework, and of its estimator.
        module: as it is imported.
        version: that the driver asks for.
    """

    name: str
    module: str
    version: str


@dataclass(frozen=True)
class Workload:
    """One of the demo's jobs, in one size.

    Attributes:
        entry_script: in ``SOURCE``.
        processes_per_node: of an MPI job; None: one parameter server, and a worker per node.
        vm_size: of the nodes, as it was typed.
    """

    framework: Framework
    entry_script: str
    nodes: int
    processes_per_node: int | None
    epochs: int
    vm_size: str = SIZE

    @property
    def size(self) -> VmSize:
        """What a node has."""
        return find_size(self.vm_size)

    def describe(self) -> str:
        """Its size in words."""
        nodes = f"{self.nodes} virtual node{'s' * (self.nodes > 1)}"
        if self.size.gpu_model is not None:
            nodes += f" of {self.size.gpus} {gpu_model(self.size.gpu_model).name}"
        if self.processes_per_node is None:
            return f"{nodes}, 1 parameter server, {self.nodes} worker{'s' * (self.nodes > 1)}"
        each = self.processes_per_node
        return f"{nodes} x {each} process{'es' * (each > 1)}"

    def driver(self, source: str, *, backend: str, era: str) -> str:
        """The driver script.

        What Azure's signatures have no room for, the backend and the era, is said in tags.

        Args:
            source: the folder of the training scripts, as the driver is to name it.
        """
        cluster = [
            f'vm_size="{self.vm_size}"',
            f"max_nodes={self.nodes}",
            "idle_seconds_before_scaledown=60",
        ]
        tags = {
            f"simgrid-ml.{name}": value
            for name, value, usual in (("backend", backend, "process"), ("era", era, "E2"))
            if value != usual
        }
        if tags:
            cluster.append(f"tags={json.dumps(tags)}")
        if self.processes_per_node is None:
            kind = "TensorflowConfiguration"
            counts = f"worker_count={self.nodes}, parameter_server_count=1"
        else:
            kind = "MpiConfiguration"
            counts = f"process_count_per_node={self.processes_per_node}"
        return DRIVER.format(
            cluster=",\n    ".join(cluster) + ",",
            cluster_name=CLUSTER,
            configuration_class=kind,
            distribution=f"{kind}({counts})",
            entry_script=self.entry_script,
            epochs=self.epochs,
            estimator=self.framework.name,
            experiment=EXPERIMENT,
            framework_version=self.framework.version,
            nodes=self.nodes,
            source=json.dumps(source),
            use_gpu="\n    use_gpu=True," if self.size.gpus else "",
        )


_PYTORCH = Framework("PyTorch", "torch", "1.4")
_TENSORFLOW = Framework("TensorFlow", "tensorflow", "2.3")

SCRIPTS = {
    ("pytorch", "mpi"): (_PYTORCH, "pytorch_horovod.py"),
    ("tensorflow", "mpi"): (_TENSORFLOW, "tensorflow_horovod.py"),
    ("tensorflow", "ps"): (_TENSORFLOW, "parameter_server.py"),
}
"""What is asked for → with what, and by which script."""


def workload(
    framework: str,
    distribution: str,
    *,
    nodes: int,
    processes_per_node: int | None,
    epochs: int,
    vm_size: str = SIZE,
) -> Workload:
    """The job that is asked for.

    Args:
        processes_per_node: None: one for each GPU of a node, or two where it has none; of an MPI
            job alone.

    Raises:
        UsageError: there is none of the kind.
        SpecError: there is no such VM size.
    """
    if (framework, distribution) not in SCRIPTS:
        raise UsageError(
            f"{framework} has no parameter servers, TensorFlow has",
            remedy="--framework tensorflow --distribution ps, or --distribution mpi",
        )
    if distribution == "ps" and processes_per_node is not None:
        raise UsageError(
            "a parameter-server job has one worker for each node, not processes per node",
            remedy="leave out --processes-per-node",
        )
    gpus = find_size(vm_size).gpus
    each = None if distribution == "ps" else processes_per_node or gpus or 2
    return Workload(*SCRIPTS[framework, distribution], nodes, each, epochs, vm_size)
