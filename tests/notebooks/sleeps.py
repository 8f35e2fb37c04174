# %% Before
import time


# %% Sleep
print("asleep", flush=True)
time.sleep(600)
