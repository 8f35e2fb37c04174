# %% Take memory, in one process or in several
import os
import time

total, processes = int(os.environ["ALLOCATE_BYTES"]), int(os.environ.get("PROCESSES", "1"))
for _ in range(processes - 1):
    if os.fork() == 0:
        break
block = bytearray()
step = 4 << 20
while len(block) < total // processes:
    block += b"\x01" * step
    time.sleep(0.01)
print("allocated", len(block), flush=True)
time.sleep(float(os.environ.get("HOLD_S", "600")))
os._exit(0)
