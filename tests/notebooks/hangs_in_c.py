# %% Wait in C with every signal masked
import ctypes
import signal

signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
print("masked", flush=True)
ctypes.CDLL(None).pause()
