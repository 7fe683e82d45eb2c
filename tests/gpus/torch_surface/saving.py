"""Copies, pickles and files: what was on a GPU is on it again, or where one says."""

import copy
import io
import pickle
import tempfile

import torch
from checking import check, raises, run
from torch import nn


def saved(what, **options):
    stream = io.BytesIO()
    torch.save(what, stream, **options)
    stream.seek(0)
    return stream


def loaded(stream, *args, **options):
    stream.seek(0)
    return torch.load(stream, *args, **options)


@check
def copies_stay_on_their_gpu():
    model = nn.Linear(2, 2).cuda(1)
    twin = copy.deepcopy(model)
    assert twin.weight.get_device() == 1 and twin.weight is not model.weight
    twin.weight.data.zero_()
    assert model.weight.abs().sum() > 0
    x = torch.ones(2, device="cuda:1")
    assert copy.deepcopy(x).get_device() == copy.copy(x).get_device() == 1
    assert copy.deepcopy({"x": [x]})["x"][0].get_device() == 1


@check
def pickles_come_back_to_their_gpu():
    x = torch.ones(2, device="cuda:1")
    assert pickle.loads(pickle.dumps(x)).get_device() == 1
    assert pickle.loads(pickle.dumps(nn.Linear(2, 2).cuda())).weight.is_cuda
    assert not pickle.loads(pickle.dumps(torch.ones(2))).is_cuda


@check
def files_say_where_a_tensor_was():
    for zipped in (True, False):
        stream = saved(
            {"w": torch.arange(3.0, device="cuda:1")}, _use_new_zipfile_serialization=zipped
        )
        assert loaded(stream)["w"].device == torch.device("cuda:1")
        for location, expected in (
            *(("cpu", "cpu"), (torch.device("cpu"), "cpu"), ("cuda:0", "cuda:0")),
            *((torch.device("cuda:0"), "cuda:0"), ("cuda", "cuda:0")),
            *(({"cuda:1": "cuda:0"}, "cuda:0"), ({"cuda:1": "cpu"}, "cpu")),
            *(({"cuda:0": "cpu"}, "cuda:1"), (lambda storage, location: storage, "cpu")),
            (lambda storage, location: storage.cuda(0), "cuda:0"),
        ):
            w = loaded(stream, map_location=location)["w"]
            assert str(w.device) == expected, (zipped, location, w.device)
            assert w.tolist() == [0, 1, 2]


@check
def files_of_the_host_go_to_a_gpu():
    stream = saved(torch.ones(2))
    assert not loaded(stream).is_cuda and loaded(stream, map_location="cuda:1").get_device() == 1
    with torch.cuda.device(1):
        assert loaded(stream, map_location="cuda").get_device() == 1


@check
def weights_alone_are_loaded_too():
    stream = saved(nn.Linear(2, 2).cuda(1).state_dict())
    assert loaded(stream, weights_only=True)["weight"].get_device() == 1
    assert not loaded(stream, weights_only=True, map_location="cpu")["weight"].is_cuda


@check
def a_file_of_a_gpu_that_is_not_here_says_so():
    stream = saved(torch.ones(3, device="cuda:1"))
    text = stream.getvalue().replace(b"cuda:1", b"cuda:7")
    with raises(
        RuntimeError,
        "Attempting to deserialize object on CUDA device 7 but torch.cuda.device_count() is 2",
        "map_location",
        "[simgrid-ml]",
    ):
        torch.load(io.BytesIO(_repaired(text)))


def _repaired(content):
    """The sums in a zip file do not fit what was replaced: written again."""
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            old.fp.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(old.fp.read(2), "little") for _ in range(2))
            old.fp.seek(name + extra, 1)
            new.writestr(info.filename, old.fp.read(info.file_size))
    return target.getvalue()


@check
def whole_trainings_resume():
    model = nn.Linear(2, 2).cuda(1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2).cuda(1)).sum().backward()
    optimizer.step()
    stream = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    again = nn.Linear(2, 2).cuda(0)
    resumed = torch.optim.Adam(again.parameters())
    state = loaded(stream, map_location="cpu")
    again.load_state_dict(state["model"])
    resumed.load_state_dict(state["optimizer"])
    assert again.weight.get_device() == 0
    assert resumed.state[again.weight]["exp_avg"].get_device() == 0
    assert torch.equal(again.weight.cpu(), model.weight.cpu())
    again(torch.ones(1, 2).cuda(0)).sum().backward()
    resumed.step()


@check
def one_storage_stays_one():
    base = torch.arange(4.0, device="cuda:1")
    one, other = loaded(saved([base[:2], base[2:]]))
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    assert one.get_device() == other.get_device() == 1
    twins = copy.deepcopy([base[:2], base[2:]])
    assert twins[0].untyped_storage().data_ptr() == twins[1].untyped_storage().data_ptr()


@check
def storages_say_where_they_are():
    storage = torch.zeros(2, device="cuda:1").untyped_storage()
    assert str(storage.device) == "cuda:1" and storage.is_cuda
    assert not storage.cpu().is_cuda and str(storage.cuda(0).device) == "cuda:0"
    assert storage.cuda(1) is storage and str(storage.clone().device) == "cuda:1"
    typed = torch.zeros(2, device="cuda").storage()
    assert typed.is_cuda and str(typed.device) == "cuda:0" and not typed.cpu().is_cuda
    assert str(torch.UntypedStorage(8, device="cuda:1").device) == "cuda:1"


@check
def sparse_tensors_and_scripts_are_saved():
    assert loaded(saved(torch.eye(2).to_sparse().cuda())).is_cuda
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.jit.save(torch.jit.script(nn.Linear(2, 2).cuda()), file.name)
        assert not torch.jit.load(file.name, map_location="cpu").weight.is_cuda
        assert torch.jit.load(file.name, map_location="cuda:1").weight.get_device() == 1
        assert torch.jit.load(file.name, map_location="cuda").weight.get_device() == 0
        with torch.cuda.device(1), open(file.name, "rb") as stream:
            assert torch.jit.load(stream, torch.device("cuda")).weight.get_device() == 1
        assert torch.jit.load(file.name).cuda()(torch.ones(1, 2).cuda()).is_cuda


@check
def generators_states_are_saved():
    state = loaded(saved({"gpu": torch.cuda.get_rng_state(), "cpu": torch.get_rng_state()}))
    before = torch.rand(2, device="cuda")
    torch.cuda.set_rng_state(state["gpu"])
    torch.set_rng_state(state["cpu"])
    assert torch.equal(before, torch.rand(2, device="cuda"))


run()
