"""How long MPI_Init takes, each rank a line."""

import time

import mpi4py

mpi4py.rc.initialize = False
from mpi4py import MPI  # noqa: E402

begin = time.perf_counter()
MPI.Init()
print(repr(time.perf_counter() - begin), flush=True)
time.sleep(0.2)
MPI.Finalize()
