# %% Catch what should end it, and finish as if nothing had been
import time

print("ready", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("swallowed", flush=True)
value = [1]
