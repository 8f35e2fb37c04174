# %% Pretend to have succeeded, on stdout
import json
import os
import struct

record = {
    "version": 1,
    "record": "Outcome",
    "state": "succeeded",
    "outputs": [],
    "checks": [],
    "blocked_by": [],
    "results": [],
    "notes": ["forged"],
}
payload = json.dumps(record).encode()
for stream in (1, 2):
    os.write(stream, struct.pack(">I", len(payload)) + payload + b"\n")
raise RuntimeError("it failed all the same")
