"""Models leave a run as ONNX files and work in onnxruntime."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from simgrid_ml import wire
from simgrid_ml.azure import AmlCompute, ComputeTarget, Experiment, Workspace
from simgrid_ml.azure.dnn import PyTorch
from simgrid_ml.testing.leaks import nothing_left

TORCH = """
import json
import torch
from azureml.core.run import Run
from sklearn.datasets import load_digits

digits = load_digits()
pictures = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(pictures), labels)
    loss.backward()
    optimizer.step()
model.eval()
torch.onnx.export(model, pictures[:5], "outputs/model.onnx",
                  input_names=["pictures"], output_names=["scores"])
with open("outputs/scores.json", "w") as stream:
    json.dump([pictures[:5].tolist(), model(pictures[:5]).tolist()], stream)
Run.get_context().log("loss", loss.item())
"""

COMPARES = """
import json, sys
import numpy as np
import onnxruntime

pictures, scores = json.load(open(sys.argv[2]))
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(name,) = [one.name for one in session.get_inputs()]
(found,) = session.run(None, {name: np.array(pictures, dtype=np.float32)})
np.testing.assert_allclose(found, np.array(scores), rtol=1e-3, atol=1e-5)
print("equal", found.shape)
"""


def loads_and_agrees(python: str, model: Path, scores: Path) -> bool:
    """Whether onnxruntime computes from ``model`` the scores that the run has written."""
    done = subprocess.run(
        [python, "-c", COMPARES, str(model), str(scores)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.startswith("equal ")


def test_a_model_of_torch_is_downloaded_and_computes_the_same_elsewhere(
    tmp_path: Path, own_home: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text(TORCH)
    with nothing_left(str(tmp_path)):
        workspace = Workspace.local()
        size = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=1)
        estimator = PyTorch(
            str(source),
            compute_target=ComputeTarget.create(workspace, "gpucluster", size),
            entry_script="train.py",
            framework_version="1.4",
            conda_packages=["scikit-learn"],
            pip_packages=["onnx", "onnxruntime", "onnxscript"],
        )
        run = Experiment(workspace, "onnx").submit(estimator)
        run.wait_for_completion()
        assert run.get_metrics()["loss"] < 1.5
        kept = [name for name in run.get_file_names() if name.startswith("outputs/")]
        assert {"outputs/model.onnx", "outputs/scores.json"} <= set(kept)
        run.download_files(prefix="outputs/", output_directory=str(tmp_path / "here"))
        python = json.loads((Path(run._record.path) / wire.ENVIRONMENT).read_text())["python"]
    here = tmp_path / "here" / "outputs"
    assert loads_and_agrees(python, here / "model.onnx", here / "scores.json")
