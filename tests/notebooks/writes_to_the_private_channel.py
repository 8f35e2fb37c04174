# %% Find the private socket and write to it what the guardian must not believe
import json
import os
import stat
import struct

sockets = [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")]
sockets = [n for n in sockets if stat.S_ISSOCK(os.fstat(n).st_mode)]
assert len(sockets) == 1, sockets
good = json.dumps(
    {
        "version": 1,
        "record": "Outcome",
        "state": "succeeded",
        "outputs": [],
        "checks": [],
        "blocked_by": [],
        "results": [],
        "notes": [],
    }
).encode()
frames = {
    "truncated": struct.pack(">I", len(good)) + good[:20],
    "huge": struct.pack(">I", 0xFFFFFFFF) + b"x" * 100,
    "foreign version": struct.pack(">I", len(good)) + good.replace(b'"version": 1', b'"version": 9'),
    "no JSON": struct.pack(">I", 8) + b"not json",
    "no record": struct.pack(">I", 30) + b'{"version": 1, "record": null}',
    "deep": struct.pack(">I", 100_000) + b"[" * 100_000,
    "wrong cell": struct.pack(">I", 32) + b'{"version": 1, "record": "Cell"}',
    "wrong shape": struct.pack(">I", 43) + b'{"version": 1, "record": "Outcome", "a": 1}',
}
while os.environ["FRAME"] == "endless":
    os.write(sockets[0], (struct.pack(">I", 33) + b'{"version": 1, "record": "Stage"}') * 1000)
os.write(sockets[0], frames[os.environ["FRAME"]])
os._exit(0)
