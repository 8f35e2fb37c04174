"""The look of all pages: templates whose values are escaped unless they are `Markup`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["compile_templates", "render"]


def render(name: str, **values: Any) -> str:
    """A page.

    Parameters
    ----------
    name : str
        A file of this folder.
    **values
        What the template names. Text is escaped; what is safe as it is comes as `Markup`.

    Returns
    -------
    str
        HTML.
    """
    return _environment().get_template(name).render(values)


def compile_templates() -> None:
    """Compile all of them, for a process that is copied for each page."""
    environment = _environment()
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from research_jobs.report.header import readable_duration
    from research_jobs.units import readable_size

    environment = Environment(
        loader=PackageLoader("research_jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters |= {"bytes": readable_size, "duration": readable_duration}
    return environment
