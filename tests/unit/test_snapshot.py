"""What a snapshot holds, what it leaves out, and when it is refused."""

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simgrid_ml import wire
from simgrid_ml.engine import snapshot
from simgrid_ml.errors import SnapshotError

HOSTILE = [
    "with space.py",
    "quote'\".py",
    "new\nline.py",
    "żółć-日本.py",
    "-rf",
    "$(touch x)",
    "a;b",
    b"latin-\xe9.txt".decode("utf-8", "surrogateescape"),
]


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def held(folder: Path) -> list[str]:
    return [name for name, _, _ in snapshot.files_of(str(folder))]


def unpacked(tmp_path: Path, source: Path) -> Path:
    archive = tmp_path / "code.tar.gz"
    snapshot.take(str(source), str(archive))
    snapshot.unpack(str(archive), str(tmp_path / "out"))
    return tmp_path / "out"


def test_every_file_comes_back_with_its_content_and_its_executable_bit(tmp_path):
    source = make(tmp_path / "src", {"train.py": "print(1)", "a/b/c.txt": "x", "run.sh": "#!"})
    (source / "run.sh").chmod(0o755)
    out = unpacked(tmp_path, source)
    assert (out / "a/b/c.txt").read_text() == "x"
    assert os.access(out / "run.sh", os.X_OK)
    assert not os.access(out / "train.py", os.X_OK)


def test_hostile_file_names_come_back(tmp_path):
    source = make(tmp_path / "src", dict.fromkeys(HOSTILE, "x"))
    assert sorted(os.listdir(unpacked(tmp_path, source))) == sorted(HOSTILE)


def test_the_id_depends_on_content_names_and_modes_and_on_nothing_else(tmp_path):
    ids = []
    for number, change in enumerate(
        [{}, {}, {"train.py": "other"}, {"other.py": "x"}, {"train.py": "x\0-y"}]
    ):
        source = make(tmp_path / f"s{number}", {"train.py": "x", **change})
        os.utime(source / "train.py", (number, number))
        ids.append(snapshot.take(str(source), str(tmp_path / f"{number}.tgz")).id)
    # Two empty files, and one whose content looks like the second.
    for number, files in ((10, {"a": "", "b": ""}), (11, {"a": "b\0-"})):
        source = make(tmp_path / f"s{number}", files)
        ids.append(snapshot.take(str(source), str(tmp_path / f"{number}.tgz")).id)
    (tmp_path / "s0" / "train.py").chmod(0o755)
    ids.append(snapshot.take(str(tmp_path / "s0"), str(tmp_path / "x.tgz")).id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(ids) - 1


def test_amlignore_wins_over_gitignore_and_only_the_root_counts(tmp_path):
    source = make(
        tmp_path / "src",
        {
            ".amlignore": "data/\n*.log\n",
            ".gitignore": "train.py\n",
            "train.py": "",
            "data/big.bin": "",
            "deep/x.log": "",
            "deep/.amlignore": "*\n",
            "deep/kept.py": "",
        },
    )
    assert held(source) == [
        ".amlignore",
        ".gitignore",
        "deep/.amlignore",
        "deep/kept.py",
        "train.py",
    ]
    (source / ".amlignore").unlink()
    assert "train.py" not in held(source)
    assert "data/big.bin" in held(source)


def test_a_later_pattern_brings_a_file_back_out_of_an_ignored_folder(tmp_path):
    source = make(
        tmp_path / "src",
        {".amlignore": "data/\n!data/keep.txt\n", "data/keep.txt": "", "data/x.bin": ""},
    )
    assert held(source) == [".amlignore", "data/keep.txt"]


def test_an_ignored_folder_is_not_even_listed(tmp_path, monkeypatch):
    source = make(tmp_path / "src", {".amlignore": "data\n", "train.py": "", "data/a": ""})
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    held(source)
    assert listed == [str(source)]


def test_a_link_to_a_file_is_stored_as_the_file_and_a_loop_ends(tmp_path):
    source = make(tmp_path / "src", {"train.py": "x", "sub/y.py": "y"})
    make(tmp_path, {"outside.txt": "secret"})
    (source / "link.txt").symlink_to(tmp_path / "outside.txt")
    (source / "sub" / "loop").symlink_to(source)
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    out = unpacked(tmp_path, source)
    assert sorted(os.listdir(out)) == ["link.txt", "sub", "train.py"]
    assert not (out / "link.txt").is_symlink()
    assert os.listdir(out / "sub") == ["y.py"]


def test_a_folder_over_the_limit_is_refused_with_the_largest_files_named(tmp_path):
    source = make(tmp_path / "src", {"train.py": "x", "weights.bin": "x" * 2000})
    with pytest.raises(SnapshotError, match="exceeds the limit of") as caught:
        snapshot.take(str(source), str(tmp_path / "c.tgz"), limit_bytes=1000)
    assert str(source) in caught.value.cause
    assert caught.value.evidence.startswith("1.95 KiB 'weights.bin'")
    assert os.listdir(tmp_path) == ["src"]


def test_the_limit_is_azures_unless_another_is_given(tmp_path):
    source = make(tmp_path / "src", {"train.py": "x"})
    with open(source / "sparse.bin", "wb") as stream:
        stream.truncate(wire.SNAPSHOT_MAX_BYTES + 1)
    with pytest.raises(SnapshotError, match=r"300\.0 MB"):
        snapshot.take(str(source), str(tmp_path / "c.tgz"))


def test_too_many_files_are_refused_unless_the_variable_allows_them(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "SNAPSHOT_MAX_FILES", 3)
    source = make(tmp_path / "src", dict.fromkeys("abcd", ""))
    with pytest.raises(SnapshotError, match="file limit of 3"):
        snapshot.take(str(source), str(tmp_path / "c.tgz"))
    monkeypatch.setenv(snapshot.NO_FILE_LIMIT_VARIABLE, "1")
    assert snapshot.take(str(source), str(tmp_path / "c.tgz")).files == 4


def test_a_large_snapshot_is_warned_about(tmp_path, caplog):
    source = make(tmp_path / "src", {})
    source.mkdir()
    with open(source / "sparse.bin", "wb") as stream:
        stream.truncate(25 * 2**20)
    snapshot.take(str(source), str(tmp_path / "c.tgz"))
    assert "25 MiB" in caplog.text


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_source_that_is_no_folder_is_a_clear_error(tmp_path, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match="source directory"):
        snapshot.take(str(tmp_path / what), str(tmp_path / "c.tgz"))


def test_unpacking_never_leaves_the_folder(tmp_path):
    archive = tmp_path / "evil.tar.gz"
    (tmp_path / "x").write_text("x")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "x", "../escaped")
    with pytest.raises(tarfile.TarError):
        snapshot.unpack(str(archive), str(tmp_path / "out"))
    assert not (tmp_path / "escaped").exists()


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda n: n not in (".", "..", ".amlignore", ".gitignore") and len(n.encode()) < 200)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(names, st.binary(max_size=50), max_size=6))
def test_any_folder_comes_back_as_it_was(tmp_path_factory, files):
    tmp_path = tmp_path_factory.mktemp("any")
    source = tmp_path / "src"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    out = unpacked(tmp_path, source)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == files
