"""What `import research_jobs` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import research_jobs


def test_every_public_name_resolves() -> None:
    """Each name in `__all__` can be loaded from the package itself."""
    for name in research_jobs.__all__:
        assert getattr(research_jobs, name) is not None


def test_every_error_is_public() -> None:
    """What can be raised on purpose can be caught by a name of the package itself."""
    from research_jobs import errors

    names = [name for name in errors.__all__ if name.endswith("Error")]
    assert len(names) > 10
    for name in names:
        assert name in research_jobs.__all__
        assert getattr(research_jobs, name) is getattr(errors, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that the package does not offer raises, so `hasattr` and imports behave as usual."""
    assert not hasattr(research_jobs, "no_such_name")


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import research_jobs` loads neither Dagster nor the data libraries."""
    program = (
        "import sys, research_jobs; "
        "print([n for n in ('dagster','pandas','numpy','pyarrow','pydantic','IPython') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_function_context_is_not_shadowed_by_a_module() -> None:
    """`research_jobs.context` stays the function after every module of the package was imported."""
    program = (
        "import research_jobs.run_context, research_jobs; "
        "assert callable(research_jobs.context); "
        "assert research_jobs.context().in_batch is False"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
