"""MNIST as TensorFlow 1's tutorials read it, or pictures like it where there are no files of it."""

from __future__ import annotations

import collections
import gzip
import math
import os
import sys

import numpy as np

__all__ = ["DataSet", "Datasets", "dense_to_one_hot", "extract_images", "extract_labels"]
__all__ += ["read_data_sets"]

Datasets = collections.namedtuple("Datasets", ["train", "validation", "test"])

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_CLASSES = 10
_SIDE = 28
_STAND_IN_SHARE = 10
"""Of MNIST's 60 000 and 10 000 pictures, the stand-in has one in so many."""


class DataSet:
    """Pictures and labels, handed out in shuffled batches without end.

    Attributes:
        images: of shape (n, 784), or (n, 28, 28, 1) without ``reshape``; float32 in [0, 1], or
            uint8 in [0, 255] if ``dtype`` says so.
        labels: uint8 of shape (n,), or float64 of shape (n, 10) if read with ``one_hot``.
        num_examples: n.
        epochs_completed: how often all examples have been handed out.
    """

    def __init__(
        self,
        images,
        labels,
        fake_data=False,
        one_hot=False,
        dtype="float32",
        reshape=True,
        seed=None,
    ):
        self._random = np.random.RandomState(seed)
        self._fake = ([1] * _SIDE**2, [1] + [0] * (_CLASSES - 1) if one_hot else 0)
        self.one_hot = one_hot
        self.epochs_completed = 0
        self._position = 0
        if fake_data:
            self.images, self.labels, self.num_examples = None, None, 10000
            return
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} pictures, but {len(labels)} labels")
        wanted = getattr(dtype, "as_numpy_dtype", dtype)  # TensorFlow's type, NumPy's or a name
        if np.dtype(wanted) not in (np.dtype("uint8"), np.dtype("float32")):
            raise TypeError(f"dtype must be uint8 or float32, not {dtype!r}")
        if reshape:
            images = images.reshape(len(images), math.prod(images.shape[1:]))
        if np.dtype(wanted) == np.float32:
            images = images.astype(np.float32) * np.float32(1 / 255)
        self.images, self.labels, self.num_examples = images, labels, len(images)
        self._order = np.arange(len(images))

    def next_batch(self, batch_size, fake_data=False, shuffle=True):
        """The next ``batch_size`` pictures and labels; at an epoch's end some of the next.

        None, if there are none at all.
        """
        if fake_data or self.images is None:
            return tuple([each] * batch_size for each in self._fake)
        if shuffle and self._position == self.epochs_completed == 0:
            self._random.shuffle(self._order)
        taken = []
        missing = batch_size
        while missing and self.num_examples:
            if self._position == self.num_examples:
                self.epochs_completed += 1
                self._position = 0
                if shuffle:
                    self._random.shuffle(self._order)
            part = self._order[self._position : self._position + missing].copy()
            self._position += len(part)
            missing -= len(part)
            taken.append(part)
        chosen = np.concatenate(taken) if taken else self._order[:0]
        return self.images[chosen], self.labels[chosen]


def read_data_sets(
    train_dir,
    fake_data=False,
    one_hot=False,
    dtype="float32",
    reshape=True,
    validation_size=5000,
    seed=None,
    source_url=None,
):
    """The pictures in ``train_dir``: train, validation (the first of the files) and test.

    Args:
        train_dir: made if it is not there. With none of MNIST's four files in it the pictures are
            generated, the same in every process, a tenth in number.
        one_hot: labels as rows of ten.
        validation_size: how many of MNIST's 60 000 are for validation.
        seed: of the shuffling; None: another each time.
        source_url: not used, nothing is fetched.

    Raises:
        FileNotFoundError: some of the four files are there, others not.
        ValueError: a file is not what its name says, or ``validation_size`` not in 0 … 60 000.
    """
    options = {"one_hot": one_hot, "dtype": dtype, "reshape": reshape, "seed": seed}
    if fake_data:
        return Datasets(*(DataSet([], [], fake_data=True, **options) for _ in Datasets._fields))
    os.makedirs(train_dir, exist_ok=True)
    paths = [os.path.join(train_dir, name) for name in FILES]
    if not any(map(os.path.exists, paths)):
        validation_size //= _STAND_IN_SHARE
        images, labels = _generated(60000 // _STAND_IN_SHARE, seed=1)
        test_images, test_labels = _generated(10000 // _STAND_IN_SHARE, seed=2)
        sys.stderr.write(
            f"simgrid-ml: {train_dir} has none of MNIST's files and nothing is fetched, so these "
            f"are generated pictures of digits, not MNIST; for that put {', '.join(FILES)} there\n"
        )
    else:
        images, test_images = extract_images(paths[0]), extract_images(paths[2])
        labels, test_labels = extract_labels(paths[1]), extract_labels(paths[3])
    if not 0 <= validation_size <= len(images):
        raise ValueError(
            f"validation_size must be between 0 and {len(images)}, not {validation_size}"
        )
    if one_hot:
        labels = dense_to_one_hot(labels, _CLASSES)
        test_labels = dense_to_one_hot(test_labels, _CLASSES)
    first, rest = slice(None, validation_size), slice(validation_size, None)
    return Datasets(
        train=DataSet(images[rest], labels[rest], **options),
        validation=DataSet(images[first], labels[first], **options),
        test=DataSet(test_images, test_labels, **options),
    )


def extract_images(f):
    """uint8 of shape (n, rows, columns, 1) from a gzipped idx file, given by path or open."""
    return _idx(f, 2051, 3)[..., None]


def extract_labels(f, one_hot=False, num_classes=_CLASSES):
    """uint8 of shape (n,) from a gzipped idx file, or one-hot."""
    labels = _idx(f, 2049, 1)
    return dense_to_one_hot(labels, num_classes) if one_hot else labels


def dense_to_one_hot(labels_dense, num_classes):
    """float64 of shape (n, num_classes) from labels of shape (n,)."""
    return np.eye(num_classes)[labels_dense]


def _idx(source, magic, dimensions):
    path = source if isinstance(source, (str, os.PathLike)) else source.name
    try:
        with gzip.open(source, "rb") as stream:
            content = stream.read()
        header = np.frombuffer(content, ">u4", 1 + dimensions)
        if header[0] != magic:
            raise ValueError(f"its first number is {header[0]}")
        return np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(header[1:])
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a file of MNIST: {error}") from error


_GLYPHS = """
.###. ..#.. .###. ####. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ....# ..##. #.... .#... ....# #...# #...#
#...# ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#...# ..#.. ...#. .###. #..#. ....# ####. ..#.. .###. .####
#...# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... ....# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### ####. ...#. .###. .###. .#... .###. .##..
"""
_FINE = 8
"""Points of a drawn glyph per dot of the above."""


def _glyphs():
    """float32 in [0, 1] of shape (10, 72, 56): soft-edged, one dot of nothing around each."""
    rows = [line.split() for line in _GLYPHS.split("\n") if line]
    dots = np.array([[[dot == "#" for dot in row[n]] for row in rows] for n in range(_CLASSES)])
    fine = np.pad(dots, ((0, 0), (1, 1), (1, 1))).repeat(_FINE, 1).repeat(_FINE, 2)
    fine = fine.astype(np.float32)
    for axis in (1, 2):
        fine = sum(np.roll(fine, step, axis) for step in range(-_FINE // 2, _FINE // 2 + 1))
    return np.minimum(fine / (_FINE // 2 * _FINE), 1)


def _generated(count, seed):
    """``count`` pictures, uint8 of shape (count, 28, 28, 1), and their labels, uint8 (count,)."""
    random = np.random.RandomState(seed)
    glyphs = _glyphs()
    _, height, width = glyphs.shape
    labels = random.randint(_CLASSES, size=count).astype(np.uint8)

    def each(low, high):
        return random.uniform(low, high, (count, 1, 1)).astype(np.float32)

    # From each picture's points to those of its glyph: shifted, scaled and slanted.
    along = np.arange(_SIDE, dtype=np.float32) - (_SIDE - 1) / 2
    y = along[None, :, None] + each(-3, 3)
    x = along[None, None, :] + each(-3, 3) + each(-0.25, 0.25) * y
    row = np.clip(y * each(2.5, 3.7) + height / 2, 0, height - 1).astype(np.intp)
    column = np.clip(x * each(2.5, 3.7) + width / 2, 0, width - 1).astype(np.intp)
    ink = glyphs[labels[:, None, None], row, column] * each(150, 255)
    noise = random.randint(-40, 40, ink.shape).astype(np.int16)
    images = np.clip(ink.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return images[..., None], labels
