"""Times allreduce: ``allreduce.py BUDGET_S SIZE…``; rank 0 prints one line of JSON.

Per iteration: a barrier, then each rank's own time, then the largest of them over the ranks.
Iterations per size: as many as fit into the budget, 20 to 2000, agreed upon by all ranks.
"""

import json
import sys
import time

import mpi4py

mpi4py.rc.initialize = False
import numpy  # noqa: E402
from mpi4py import MPI  # noqa: E402

begin = time.perf_counter()
MPI.Init()
init_s = time.perf_counter() - begin
world = MPI.COMM_WORLD
budget_s = float(sys.argv[1])


def once(send, receive):
    world.Barrier()
    begin = time.perf_counter()
    world.Allreduce(send, receive)
    return time.perf_counter() - begin


found = {}
for size in map(int, sys.argv[2:]):
    send = numpy.ones(size // 4, dtype=numpy.float32)
    receive = numpy.empty_like(send)
    begin = time.perf_counter()
    for _ in range(5):
        once(send, receive)
    assert receive[0] == world.size and receive[-1] == world.size
    each_s = world.bcast((time.perf_counter() - begin) / 5)
    count = max(20, min(2000, int(budget_s / each_s)))
    times = numpy.array([once(send, receive) for _ in range(count)])
    slowest = numpy.empty_like(times)
    world.Allreduce(times, slowest, op=MPI.MAX)
    found[size] = slowest.tolist()
slowest_init = world.allreduce(init_s, op=MPI.MAX)
if world.rank == 0:
    print(json.dumps({"init_s": slowest_init, "times_s": found}), flush=True)
MPI.Finalize()
