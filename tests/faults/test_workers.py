"""A notebook's functions in other processes: they arrive, or the run fails at once."""

from __future__ import annotations

import textwrap

import pyarrow.parquet as pq
import pytest
from lab import Lab, Ran

from research_jobs.outcome import State

NOTEBOOK = """
# %% Functions and a class of the notebook
import os
from dataclasses import dataclass
open("tops.txt", "a").write("top\\n")
factor = 2

@dataclass
class Point:
    x: int

def double(x):
    return Point(x * factor)

# %% In other processes
{work}
# %% Back
out = [point.x for point in points]
assert all(type(point) is Point for point in points)
"""
# Workers that pickle by value, or that are forked and so have the notebook.
ARRIVE = {
    "joblib's loky": """
from joblib import Parallel, delayed
points = Parallel(n_jobs=2)(delayed(double)(i) for i in range(4))
""",
    "joblib's loky, imported in an earlier cell": """
import joblib
# %% Later
points = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(double)(i) for i in range(4))
""",
    "joblib's multiprocessing": """
from joblib import Parallel, delayed
points = Parallel(n_jobs=2, backend="multiprocessing")(delayed(double)(i) for i in range(4))
""",
    "joblib's loky, with forkserver as the default": """
import multiprocessing
multiprocessing.set_start_method("forkserver", force=True)
from joblib import Parallel, delayed
points = Parallel(n_jobs=2)(delayed(double)(i) for i in range(4))
""",
    "concurrent.futures": """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
    points = list(pool.map(double, range(4)))
""",
    "multiprocessing.Pool": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    points = pool.map(double, range(4))
""",
    "dask's local processes": """
import dask
from dask import delayed as later
with dask.config.set(scheduler="processes", num_workers=2):
    points = list(dask.compute(*[later(double)(i) for i in range(4)]))
""",
    "dask's cluster of local processes": """
from distributed import Client, LocalCluster
with LocalCluster(n_workers=2, dashboard_address=None) as cluster, Client(cluster) as client:
    points = client.gather(client.map(double, range(4)))
""",
    "multiprocess": """
import multiprocess
with multiprocess.get_context("fork").Pool(2) as pool:
    points = pool.map(double, range(4))
""",
    "multiprocess, a function without a name": """
import multiprocess
with multiprocess.get_context("spawn").Pool(2) as pool:
    points = [double(x) for x in pool.map(lambda x: x + 0, range(4))]
""",
    "a spawned pool that is sent nothing of the notebook": """
import math, multiprocessing
with multiprocessing.get_context("spawn").Pool(2) as pool:
    points = [double(round(x)) for x in pool.map(math.sqrt, [0, 1, 4, 9])]
""",
}
# Workers that pickle by name and have not got the notebook.
REFUSED = {
    "{method} executor": """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(2, mp_context=get_context("{method}")) as pool:
    points = list(pool.map(double, range(4)))
""",
    "{method} executor as the default": """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
multiprocessing.set_start_method("{method}", force=True)
with ProcessPoolExecutor(2) as pool:
    points = list(pool.map(double, range(4)))
""",
    "{method} pool": """
import multiprocessing
with multiprocessing.get_context("{method}").Pool(2) as pool:
    points = pool.map(double, range(4))
""",
    "{method} pool, an instance as argument": """
import multiprocessing
with multiprocessing.get_context("{method}").Pool(2) as pool:
    points = pool.map(str, [Point(1), Point(2)])
""",
    "{method} process": """
import multiprocessing
process = multiprocessing.get_context("{method}").Process(target=double, args=(1,))
process.start(); process.join()
points = []
""",
    "{method} pool whose errors are swallowed": """
import multiprocessing, time
pool = multiprocessing.get_context("{method}").Pool(2)
while True:
    try:
        points = pool.map(double, range(4))
    except BaseException:
        time.sleep(0.01)
""",
}
REFUSED["{method} pool of multiprocess"] = REFUSED["{method} pool"].replace(
    "multiprocessing", "multiprocess"
)
HELPER = """
import os
def double(x):
    return os.getpid(), x * 2
"""


def run_workers(lab: Lab, work: str, name: str = "study", isolation: str = "fork") -> Ran:
    """Run a notebook that works in other processes; its top must run once."""
    lab.write(name, NOTEBOOK.format(work=work))
    outcome = lab.run(name, outputs=("out",), isolation=isolation, timeout_s=120.0)
    tops = (lab.notebooks / name).parent / "tops.txt"
    assert tops.read_text() == "top\n", "a worker ran the notebook again"
    return outcome


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ARRIVE)
def test_functions_arrive(lab: Lab, kind: str, isolation: str) -> None:
    """Functions and instances go there and back, the class is one class, the top runs once."""
    outcome = run_workers(lab, ARRIVE[kind], isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)
    found = pq.read_table(outcome.result.outputs[0].path).to_pylist()
    assert [row["value"] for row in found] == [0, 2, 4, 6]
    assert outcome.result.notes == ()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("kind", REFUSED)
def test_import_of_the_notebook_is_refused(lab: Lab, kind: str, method: str) -> None:
    """Where a worker would run the notebook again the run fails, with the line and a way out."""
    outcome = run_workers(lab, REFUSED[kind].format(method=method))
    assert outcome.result.state is State.FAILED, outcome
    assert outcome.headline.startswith("notebooks/study.py")
    if "process" not in kind:  # nobody waits for more than its end, so the notebook may be further
        assert 'cell 2 "In other processes"' in outcome.headline
    assert "a worker process tried to import this notebook" in outcome.headline
    assert b"cannot import the notebook study" in outcome.stderr
    assert b"KeyboardInterrupt" not in outcome.stderr


@pytest.mark.parametrize("name", ["below/study", "random/walk", "statistics"])
def test_whatever_the_notebook_is_called(lab: Lab, name: str) -> None:
    """Also below a folder, and where the folder or the file has a library's name."""
    outcome = run_workers(lab, REFUSED["{method} pool"].format(method="spawn"), name)
    assert outcome.result.state is State.FAILED, outcome
    assert "a worker process tried to import this notebook" in outcome.headline


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_functions_of_a_helper_module(lab: Lab, method: str) -> None:
    """A helper module beside the notebook is imported by workers however they are started."""
    lab.write("helper_module", HELPER)
    work = f"""
import helper_module, multiprocessing
from concurrent.futures import ProcessPoolExecutor
context = multiprocessing.get_context("{method}")
with context.Pool(2) as pool:
    found = pool.map(helper_module.double, range(4))
with ProcessPoolExecutor(2, mp_context=context) as pool:
    found += pool.map(helper_module.double, range(4))
from joblib import Parallel, delayed
found += Parallel(n_jobs=2)(delayed(helper_module.double)(i) for i in range(4))
assert os.getpid() not in {{pid for pid, _ in found}}
points = [Point(value) for _, value in found]
"""
    outcome = run_workers(lab, work)
    assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)
    found = pq.read_table(outcome.result.outputs[0].path).to_pylist()
    assert [row["value"] for row in found] == [0, 2, 4, 6] * 3


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_work_that_imports_the_notebook(lab: Lab, method: str) -> None:
    """An import by the work itself is an error of that work, which comes back as any other."""
    lab.write("helper_module", "def work(x):\n    import study\n    return x\n")
    work = f"""
import helper_module, multiprocessing
with multiprocessing.get_context("{method}").Pool(1) as pool:
    try:
        pool.map(helper_module.work, range(4))
    except ImportError as error:
        assert "cannot import the notebook study" in str(error)
        points = [double(i) for i in range(4)]
"""
    outcome = run_workers(lab, work)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


def test_scikit_learn(lab: Lab) -> None:
    """An estimator that the notebook defines is searched over by scikit-learn's workers."""
    lab.write(
        "searches",
        textwrap.dedent(
            """
            # %% A model of the notebook's own
            open("tops.txt", "a").write("top\\n")
            import numpy as np
            from sklearn.base import BaseEstimator, RegressorMixin
            from sklearn.model_selection import GridSearchCV

            class Shifted(RegressorMixin, BaseEstimator):
                def __init__(self, shift=0):
                    self.shift = shift
                def fit(self, X, y):
                    self.mean_ = y.mean()
                    return self
                def predict(self, X):
                    return np.full(len(X), self.mean_ + self.shift)

            # %% Search with two workers
            X, y = np.zeros((30, 1)), np.arange(30.0) % 3
            search = GridSearchCV(Shifted(), {"shift": [0, 5]}, n_jobs=2, cv=3).fit(X, y)
            best = search.best_params_["shift"]
            """
        ),
    )
    outcome = lab.run("searches", outputs=("best",), timeout_s=120.0)
    assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)
    assert pq.read_table(outcome.result.outputs[0].path).to_pylist() == [{"value": 0}]
    assert (lab.notebooks / "tops.txt").read_text() == "top\n"
