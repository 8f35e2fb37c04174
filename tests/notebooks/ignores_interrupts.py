# %% Deaf to Ctrl-C, not to TERM
import signal
import time

signal.signal(signal.SIGINT, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
