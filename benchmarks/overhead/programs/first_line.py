"""Says when it began, and lives long enough that no launcher loses it."""

import time

print(repr(time.time()), flush=True)
time.sleep(0.3)
