"""First code of a fresh interpreter: run as a script by the supervisor, under any Python.

It makes `research_jobs` importable from its own folder and from nowhere else, so that an
interpreter that has no research_jobs installed sees none of our other packages.

Arguments: role, descriptor of the control socket, pid of the supervisor, and for a guardian the
descriptors of the two logs.
"""

import json
import os
import struct
import sys

_VERSION = 1


def _fail(control, message):
    payload = json.dumps({"version": _VERSION, "record": "StartFailed", "message": message})
    os.write(control, struct.pack(">I", len(payload)) + payload.encode())
    os._exit(3)


def _path_of_interpreter():
    """The interpreter's own path: Python puts this script's folder first, which is not of it."""
    here = os.path.dirname(os.path.abspath(__file__))
    return [entry for entry in sys.path if entry and os.path.realpath(entry) != here]


def _provide_package():
    import importlib.util

    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "research_jobs",
        os.path.join(folder, "__init__.py"),
        submodule_search_locations=[folder],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["research_jobs"] = module
    spec.loader.exec_module(module)


def main():
    role, control, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path[:] = _path_of_interpreter()
    if sys.version_info < (3, 10):
        version = "%d.%d" % sys.version_info[:2]
        _fail(control, "%s is Python %s; 3.10 or later is needed" % (sys.executable, version))
    try:
        _provide_package()
        if role == "template":
            from research_jobs.runtime.template import run_template

            start = lambda: run_template(control, parent)
        else:
            from research_jobs.runtime.guardian import start_guardian

            start = lambda: start_guardian(control, parent, int(sys.argv[4]), int(sys.argv[5]))
    except Exception as error:
        name = type(error).__name__
        _fail(control, "%s could not start the runtime: %s: %s" % (sys.executable, name, error))
    else:
        start()


main()
