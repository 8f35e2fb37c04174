"""The first code of a fresh interpreter: the supervisor runs it as a script, under any Python 3.

It makes `research_jobs` importable from its own folder only, so that an interpreter without
research_jobs sees none of our other packages.

Arguments: role, descriptor of the control socket, pid of the supervisor, and for a guardian the
descriptors of the two logs.
"""

# ruff: noqa: PTH100, PTH118, PTH120, UP031, UP036 - too old interpreters run this too, and get a message

import importlib.util
import json
import os
import struct
import sys

_VERSION = 1


def _fail(control: int, message: str) -> None:
    payload = json.dumps({"version": _VERSION, "record": "StartFailed", "message": message})
    os.write(control, struct.pack(">I", len(payload)) + payload.encode())
    os._exit(3)


def _provide_package() -> None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "research_jobs",
        os.path.join(folder, "__init__.py"),
        submodule_search_locations=[folder],
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["research_jobs"] = module
    spec.loader.exec_module(module)


def _main() -> None:
    role, control, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    logs = [int(descriptor) for descriptor in sys.argv[4:]]
    # Python puts the folder of its script first; a run's path begins with the notebook's.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    if sys.version_info < (3, 10):
        version = "%d.%d" % sys.version_info[:2]
        _fail(control, "%s is Python %s, 3.10 or later is required" % (sys.executable, version))
    try:
        _provide_package()
        from research_jobs.runtime.guardian import start_guardian
        from research_jobs.runtime.template import run_template
    except Exception as error:  # noqa: BLE001 - any error is reported to the supervisor
        name = type(error).__name__
        _fail(control, "%s cannot load the runtime: %s: %s" % (sys.executable, name, error))
        return
    if role == "template":
        run_template(control, parent)
    else:
        start_guardian(control, parent, *logs)


_main()
