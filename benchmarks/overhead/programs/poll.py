"""Reduce 8 bytes again and again for so many seconds: polls, as MPI's ranks do."""

import sys
import time

from mpi4py import MPI

world = MPI.COMM_WORLD
end = time.monotonic() + float(sys.argv[1])
count = 0
while world.allreduce(int(time.monotonic() < end)):
    count += 1
print(count)
