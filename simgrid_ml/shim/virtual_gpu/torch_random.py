"""Random numbers of GPUs.

A GPU's generator is the CPU's until a script makes a difference between them: then ``dropout`` and
``randn(device="cuda")`` draw from the same numbers as on the CPU, and a training has the losses of
the CPU run. It gets numbers of its own when it is seeded or set to something else than the CPU's
generator is at that moment. ``torch.manual_seed`` seeds all and joins them again. The numbers are
the CPU's Mersenne Twister's, not those of CUDA's Philox.
"""

import contextlib
import threading

from . import torch_private

__all__ = ["install", "numbers_of"]

_one_at_a_time = threading.RLock()


def install(gpus):
    """Give every GPU a generator."""
    torch = gpus.torch
    generator = _generator(gpus)
    gpus.generators = tuple(generator(gpu) for gpu in range(len(gpus.names)))
    for one in gpus.generators:
        gpus.made_generators[one._cdata] = one
    torch.cuda.default_generators = gpus.generators
    # Seeding does not start CUDA: a parent seeds, and forks.
    torch_private.add(torch.cuda.random, "current_device", lambda: gpus.thread.current)

    def seeding(original):
        def seed_all(*seed):
            result = original(*seed)
            for one in gpus.generators:
                one.join()
            return result

        return seed_all

    for module in (torch, torch.random):
        for name in ("manual_seed", "seed"):
            torch_private.extend(module, name, seeding)


@contextlib.contextmanager
def numbers_of(gpus, gpu):
    """In the block, the CPU's generator gives the numbers of ``gpu``'s."""
    own = gpus.generators[gpu]
    if not own.differs:
        yield
        return
    cpu = gpus.torch.default_generator
    with _one_at_a_time:  # DataParallel's threads draw for their GPUs at once
        before = cpu.get_state()
        cpu.set_state(own.get_state())
        try:
            yield
        finally:
            own.keep(cpu.get_state())
            cpu.set_state(before)


def _generator(gpus):
    torch = gpus.torch
    base = torch._C.Generator

    class Generator(base):
        """A GPU's default generator.

        Attributes:
            gpu: whose it is.
            differs: from the CPU's.
        """

        def __new__(cls, gpu):
            return base.__new__(cls, "cpu")

        def __init__(self, gpu):
            self.gpu = gpu
            self.differs = False

        @property
        def device(self):
            return gpus.names[self.gpu]

        def join(self):
            self.differs = False

        def keep(self, state):
            base.set_state(self, state)

        def _apart_unless_equal(self):
            """Stay with the CPU's generator if that would give the same numbers."""
            cpu = torch.default_generator.get_state()
            self.differs = not torch.equal(cpu, base.get_state(self))

        def manual_seed(self, seed):
            base.manual_seed(self, seed)
            self._apart_unless_equal()
            return self

        def seed(self):
            seed = base.seed(self)
            self._apart_unless_equal()
            return seed

        def initial_seed(self):
            own = base.initial_seed(self)
            return own if self.differs else torch.default_generator.initial_seed()

        def get_state(self):
            return base.get_state(self) if self.differs else torch.default_generator.get_state()

        def set_state(self, state):
            base.set_state(self, state.cpu())
            self._apart_unless_equal()
            return self

        def clone_state(self):
            copy = base.__new__(torch.Generator, "cpu")
            base.set_state(copy, self.get_state())
            return copy

    return Generator
