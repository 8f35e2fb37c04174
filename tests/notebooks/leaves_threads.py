# %% A thread that finishes later, an idle pool, and a daemon thread that never does
import concurrent.futures
import pathlib
import threading
import time


def late():
    time.sleep(0.2)
    pathlib.Path("late.txt").write_text("written")


threading.Thread(target=late).start()
pool = concurrent.futures.ThreadPoolExecutor(2)
pool.submit(int, "1").result()
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
