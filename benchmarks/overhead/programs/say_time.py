"""Prints the time now and then: ``say_time.py LINES``."""

import random
import sys
import time

chance = random.Random(0)
for _ in range(int(sys.argv[1])):
    print(repr(time.time()), flush=True)
    time.sleep(chance.uniform(0.005, 0.025))
