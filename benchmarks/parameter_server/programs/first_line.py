"""Says when it began to run; a parameter server then stays, as one does."""

import json
import os
import signal
import time

print(time.time(), flush=True)
if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "ps":
    signal.pause()
