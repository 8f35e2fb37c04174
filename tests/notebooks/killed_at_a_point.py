# %% Outputs
import os
import signal

from research_jobs import failpoints

frame = [1, 2, 3]
summary = {"rows": 3}

# %% From here on the process is killed where the test says
WANTED = os.environ["KILL_AT"]
failpoints.install(
    lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == WANTED else None
)
