"""The project of `interruptions.py`: what its notebooks do, and what must be left of them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["HARD", "LINES", "MINUTES", "write_project"]

LINES = 60
MINUTES = tuple(f"minute_{number}" for number in range(1, 7))

# Each second it prints a line, and notes it in a temporary file that it opens by its name.
MINUTE = f"""
# %%
import tempfile
import time
from pathlib import Path

notes = Path(tempfile.mkdtemp(), "notes")

# %%
for second in range({LINES}):
    print("second", second, flush=True)
    with notes.open("a") as file:
        file.write("x\\n")
    time.sleep(1)

# %%
with tempfile.TemporaryFile() as other:
    lines = len(notes.read_text().splitlines())
"""

NUMBA = """
# %% Compile: for one core, for all, and into the cache
import numba
import numpy as np


@numba.njit(cache=True)
def added(values):
    total = 0.0
    for value in values:
        total += value
    return total


@numba.njit(parallel=True)
def squared(values):
    total = 0.0
    for index in numba.prange(len(values)):
        total += values[index] ** 2
    return total


@numba.vectorize(["float64(float64)"])
def doubled(value):
    return 2 * value


values = np.arange(1000.0)
assert added(values) == values.sum()
assert squared(values) == (values**2).sum()
assert doubled(values)[-1] == 1998
result = len(added.stats.cache_path)
"""

POOLS = """
# %% Pools of every kind, and what their processes share
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory

from shared_work import add, square

result = 0
for method in ("fork", "spawn", "forkserver"):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
    memory, lock, queue = SharedMemory(create=True, size=8), context.Semaphore(1), context.Queue()
    processes = [context.Process(target=add, args=(memory.name, lock, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    result += sum(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert memory.buf[0] == 3, method
    memory.close()
    memory.unlink()
"""

# What such a pool calls by name must be in a module.
SHARED_WORK = """
from multiprocessing.shared_memory import SharedMemory


def square(x):
    return x * x


def add(name, lock, queue):
    memory = SharedMemory(name)
    with lock:
        memory.buf[0] += 1
    memory.close()
    queue.put(1)
"""

# Without --no-sandbox it does not start where it cannot make its sandbox.
BROWSER = """
# %% Render a page
import subprocess

done = subprocess.run(
    ["chromium", "--headless", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom",
     "data:text/html,<p id=p></p><script>p.textContent = 6 * 7</script>"],
    capture_output=True, text=True, timeout=120,
)
print(done.stderr)
assert "42" in done.stdout, done.stdout
result = 42
"""

GRABS = """
# %% Take memory as fast as it goes
blocks = []
while len(blocks) < 256:
    blocks.append(b"x" * (8 << 20))
"""

TICK = """
# %%
import time

at = time.time()
"""

HARD = {"compiles": NUMBA, "pools": POOLS, "browser": BROWSER}

MANIFEST = f"""
defaults: {{concurrency: 9}}
notebooks:
{"".join(f"  {name}: {{outputs: [lines]}}{chr(10)}" for name in MINUTES)}
{"".join(f"  {name}: {{outputs: [result]}}{chr(10)}" for name in HARD)}
  tick: {{outputs: [at]}}
  grabs: {{memory: 300MiB}}
schedules:
  minutes: {{cron: "* * * * *", notebooks: [tick]}}
"""


def write_project(folder: Path) -> None:
    """Write notebooks and manifest."""
    folder.mkdir(parents=True)
    texts = {**dict.fromkeys(MINUTES, MINUTE), **HARD, "tick": TICK, "grabs": GRABS}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "shared_work.py").write_text(SHARED_WORK, encoding="utf-8")
    (folder / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
