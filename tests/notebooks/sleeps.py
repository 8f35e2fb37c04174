# %% Before
import time

print("asleep", flush=True)

# %% Sleep
time.sleep(600)
