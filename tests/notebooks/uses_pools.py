# %% Functions of this notebook in pools of processes and threads, one of them left open
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def square(x):
    return x * x


with multiprocessing.get_context("fork").Pool(2) as pool:
    forked = pool.map(square, [1, 2, 3])
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
    executed = list(executor.map(square, [1, 2, 3]))
left_open = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
executed += [left_open.submit(square, 4).result()]
with ThreadPoolExecutor(2) as threads:
    threaded = list(threads.map(square, [1, 2, 3]))
print(forked, executed, threaded)

# %% A process that is not waited for
late = multiprocessing.get_context("fork").Process(
    target=lambda: open("late.txt", "w").write("written")
)
late.start()
