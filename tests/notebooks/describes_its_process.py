# %% Preloaded where there is a template
import matplotlib
import matplotlib.pyplot
import numpy as np
import pandas as pd

# %% Everything that a fresh process has, as JSON
import asyncio
import atexit
import codecs
import decimal
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import resource
import secrets
import signal
import stat
import sys
import tempfile
import threading
import time
import uuid
import warnings



def _filters_version():
    """The present generation of filters: what was shown under an older one is shown again."""
    probe = {}
    with warnings.catch_warnings(record=True):
        warnings.warn_explicit("probe", UserWarning, "probe", 1, registry=probe)
    return probe.get("version")


descriptors = {
    name: stat.S_IFMT(os.fstat(int(name)).st_mode)
    for name in os.listdir("/proc/self/fd")
    if os.path.exists(f"/proc/self/fd/{name}")
}
status = dict(line.replace(":", "").split() for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn", "SigCgt", "Umask")))
same = {
    "standard descriptors": sorted(n for n in map(int, descriptors) if n < 3),
    "private descriptors": len([n for n in map(int, descriptors) if n > 2]),
    "inheritable": [n for n in map(int, descriptors) if n > 2 and os.get_inheritable(n)],
    "stdin": os.path.realpath("/proc/self/fd/0"),
    "stdin object": [sys.stdin.name, sys.stdin.encoding, sys.stdin.read()],
    "streams": [
        [s.name, s.encoding, s.errors, s.fileno(), s.isatty()]
        for s in (sys.__stdout__, sys.__stderr__)
    ],
    "signals": {int(n): repr(signal.getsignal(n)) for n in signal.valid_signals()},
    "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "kernel's signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "timers": [signal.getitimer(signal.ITIMER_REAL), signal.getitimer(signal.ITIMER_VIRTUAL)],
    "main": sorted(vars(sys.modules["__main__"])),
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "argv": sys.argv,
    "path": sys.path,
    "umask": status["Umask"],
    "threads": [thread.name for thread in threading.enumerate()],
    "main thread": threading.current_thread() is threading.main_thread(),
    "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding()],
    "filters": [str(item) for item in warnings.filters],
    "warnings shown once": len(warnings.onceregistry),
    "warnings shown": sorted(
        name
        for name, module in list(sys.modules.items())
        for registry in [getattr(module, "__warningregistry__", None) or {}]
        if registry.get("version") == _filters_version() and len(registry) > 1
    ),
    "warnings' display": warnings.showwarning.__module__,
    "logging": [logging.root.manager.disable, logging.lastResort.level, logging.raiseExceptions],
    "decimal": [repr(decimal.getcontext()), repr(decimal.DefaultContext)],
    "numpy's settings": [np.geterr(), str(np.get_printoptions())],
    "pandas' options": repr(pd._config.config._global_config),
    "matplotlib's settings": {
        key: str(value) for key, value in dict.items(matplotlib.rcParams)
    },
    "figures": matplotlib.pyplot.get_fignums(),
    "error handlers": [
        codecs.lookup_error(name).__name__ for name in ("strict", "surrogateescape", "replace")
    ],
    "start of processes": multiprocessing.get_start_method(allow_none=True),
    "thread hook": threading.excepthook is threading.__excepthook__,
    "numbers of threads": [
        getattr(sys.modules.get("numexpr"), "nthreads", None),
        getattr(sys.modules.get("numexpr"), "get_num_threads", int)(),
    ],
    "collector's callbacks": len(gc.callbacks),
    "importers": [
        getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path
    ],
    "type of the environment": str(type(os.environ)),
    "root handlers": [str(handler) for handler in logging.getLogger().handlers],
    "root level": logging.getLogger().level,
    "gc": [gc.isenabled(), gc.get_threshold()],
    "session leader": os.getsid(0) == os.getpid() == os.getpgid(0),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "limits": [resource.getrlimit(n) for n in range(10)],
    "flags": str(sys.flags),
    "temporary folder": tempfile.gettempdir(),
    "zone": time.tzname,
    "recursion": sys.getrecursionlimit(),
    "switch interval": sys.getswitchinterval(),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.gettrace(), sys.getprofile()],
    "event loop": asyncio._get_running_loop(),
    "name": [__name__, os.path.basename(__file__), __spec__.name],
    "project's modules": sorted(
        name
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", "")).startswith(os.environ["LAB_ROOT"])
    ),
    "wakeup": signal.set_wakeup_fd(-1),
}
different = {
    "random": random.getrandbits(64),
    "numpy": int(np.random.randint(0, 2**62)),
    "temporary name": next(tempfile._get_candidate_names()),
    "uuid4": str(uuid.uuid4()),
    "uuid1": str(uuid.uuid1()),
    "pid": os.getpid(),
    "key of multiprocessing": multiprocessing.current_process().authkey.hex(),
    "secrets": secrets.token_hex(),
    "default_rng": int(np.random.default_rng().integers(2**62)),
}
with open(os.environ["DESCRIPTION"], "w") as file:
    json.dump({"same": same, "different": different, "hash": hash("a text")}, file)
