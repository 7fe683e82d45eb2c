"""ChainerMN over real MPI, by the estimator: Chainer as it was released then, on today's Python."""

from __future__ import annotations

import json

import pytest

from simgrid_ml.azure import AmlCompute, ComputeTarget, Experiment, Workspace
from simgrid_ml.azure.dnn import Chainer
from simgrid_ml.azure.runconfig import MpiConfiguration
from simgrid_ml.record.run import RunRecord, RunState
from simgrid_ml.record.store import RunStore
from simgrid_ml.testing.runs import Runs, log, story

NEEDS_A_BUILD_S = 180.0

TRAIN = """
    import json, os
    import chainer
    import chainer.functions as F
    import chainer.links as L
    import chainermn
    import numpy as np
    from azureml.core import Run
    from chainer import training
    from chainer.dataset import concat_examples
    from chainer.training import extensions
    from sklearn.datasets import load_digits

    comm = chainermn.create_communicator("naive")
    place = [comm.rank, comm.size, comm.intra_rank, comm.intra_size, comm.inter_rank]
    told = {"version": chainer.__version__, "place": place, "node": os.uname().nodename}

    class MLP(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l1 = L.Linear(64, 32)
                self.l2 = L.Linear(None, 10)  # its size is known when it is first used

        def __call__(self, x):
            return self.l2(F.relu(self.l1(x)))

    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    rows = chainer.datasets.TupleDataset(x, y) if comm.rank == 0 else None
    mine = chainermn.scatter_dataset(rows, comm, shuffle=True, seed=1)
    told["rows"] = len(mine)

    np.random.seed(comm.rank)  # other weights on each rank, until they are broadcast
    model = L.Classifier(MLP())
    model(x[:1], y[:1])
    weights = model.predictor.l1.W
    told["before"] = comm.mpi_comm.allgather(float(abs(weights.array).sum()))
    comm.bcast_data(model)

    model.cleargrads()
    model(*concat_examples(mine[:100])).backward()
    own = weights.grad.copy()
    comm.allreduce_grad(model)
    every = comm.mpi_comm.allgather(own)
    told["apart"] = float(abs(every[0] - every[1]).max())
    told["off_mean"] = float(abs(weights.grad - np.mean(every, axis=0)).max())

    optimizer = chainermn.create_multi_node_optimizer(chainer.optimizers.MomentumSGD(lr=0.1), comm)
    optimizer.setup(model)
    turns = chainer.iterators.SerialIterator(mine, 64)
    once = chainer.iterators.SerialIterator(mine, 64, repeat=False, shuffle=False)
    trainer = training.Trainer(
        training.StandardUpdater(turns, optimizer), (5, "epoch"), out="outputs")
    evaluator = extensions.Evaluator(once, model)
    trainer.extend(chainermn.create_multi_node_evaluator(evaluator, comm))
    if comm.rank == 0:
        shown = ["epoch", "main/loss", "validation/main/accuracy"]
        trainer.extend(extensions.LogReport())
        trainer.extend(extensions.PrintReport(shown))
        trainer.extend(extensions.snapshot_object(model, "model.npz"), trigger=(5, "epoch"))
    trainer.run()

    told["after"] = comm.mpi_comm.allgather(float(abs(weights.array).sum()))
    if comm.rank == 0:
        run = Run.get_context()
        for entry in json.load(open("outputs/log")):
            run.log("loss", entry["main/loss"])
        run.log("accuracy", entry["validation/main/accuracy"])
    print("TOLD " + json.dumps(told))
"""


def told(record: RunRecord, rank: int) -> dict[str, object]:
    (line,) = [line for line in log(record, rank).splitlines() if line.startswith("TOLD ")]
    found: dict[str, object] = json.loads(line.partition(" ")[2])
    return found


@pytest.fixture
def target() -> ComputeTarget:
    size = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=2)
    return ComputeTarget.create(Workspace.local(), "cpucluster", size)


def test_chainermn_averages_gradients_over_two_nodes_and_the_loss_goes_down(
    workspace: Runs, target: ComputeTarget
) -> None:
    estimator = Chainer(
        workspace.source({"train.py": TRAIN}),
        compute_target=target,
        entry_script="train.py",
        node_count=2,
        distributed_training=MpiConfiguration(),
        framework_version="7.0.0",
        conda_packages=["scikit-learn"],
    )
    run = Experiment(Workspace.local(), "chainer").submit(estimator)
    record = RunStore.of_workspace("local").open(run.id)
    workspace.ended(record, NEEDS_A_BUILD_S)
    assert record.state is RunState.COMPLETED, story(record)

    for rank in range(2):
        found = told(record, rank)
        assert found["version"] == "7.0.0", "what was asked for"
        assert found["place"] == [rank, 2, 0, 1, rank] and found["node"] == f"node{rank}"
        assert found["rows"] == 899, "the half of 1797 digits, rounded up"
        first, second = found["before"]
        assert first != second, "the ranks began with weights of their own"
        first, second = found["after"]
        assert first == second, "and ended with the same"
        assert found["apart"] > 0.001 and found["off_mean"] < 1e-7
    metrics = run.get_metrics()
    assert metrics["loss"][-1] < 0.3 * metrics["loss"][0]
    assert metrics["accuracy"] > 0.9
    assert {"outputs/model.npz", "outputs/log"} <= {each.name for each in record.artifacts()}
