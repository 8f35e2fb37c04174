# %% End by a signal
import os
import signal

os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))
