# %% Change everything that is shared in one process
import os
import signal
import sys

os.environ["CHANGED_BY_NOTEBOOK"] = "1"
os.environ.pop("PATH", None)
os.chdir("/tmp")
os.umask(0o077)
sys.path.insert(0, "/changed/by/notebook")
sys.modules["changed_by_notebook"] = sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
