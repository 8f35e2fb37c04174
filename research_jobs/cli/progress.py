"""What a person sees while notebooks run: live on a terminal, a line for each where piped."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self, cast

from research_jobs.cli.output import duration, state_style
from research_jobs.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from research_jobs.orchestration.operations.launch import Note, Seen, Started

__all__ = ["Progress"]


class Progress:
    """Shows notebooks as they start and end.

    Parameters
    ----------
    quiet : bool
        Show nothing unless stderr is a terminal (stdout carries JSON then).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._total = 0
        self._ended = 0
        self._running: dict[str, float] = {}
        self._stream = sys.stderr if quiet else sys.stdout
        self._silent = quiet and not self._stream.isatty()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(self, console=console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def expect(self, count: int) -> None:
        """So many are known of by now."""
        self._total = count

    def show(self, seen: Seen) -> None:
        """Whatever a launcher tells."""
        if isinstance(seen, Outcome):
            self.ended(seen)
        elif hasattr(seen, "text"):
            self.note(cast("Note", seen).text)
        else:
            self.started(cast("Started", seen).label)

    def started(self, label: str) -> None:
        """A notebook began (or began again)."""
        self._running.setdefault(label, time.monotonic())

    def note(self, line: str) -> None:
        """Something worth a line of its own."""
        if self._live is not None:
            self._live.console.print(line, style="dim", highlight=False, markup=False)
        elif not self._silent:
            print(line, file=self._stream, flush=True)

    def ended(self, outcome: Outcome) -> None:
        """A notebook ended."""
        self._running.pop(outcome.label, None)
        self._ended += 1
        time_taken = f" in {duration(outcome.duration_s)}" if outcome.duration_s else ""
        said = f": {outcome.reason}" if outcome.reason else ""
        if self._live is not None:
            from rich.text import Text

            state = (outcome.state.words, state_style(outcome.state))
            line = Text.assemble(outcome.label, " ", state, time_taken, said)
            self._live.console.print(line)
        elif not self._silent:
            print(f"{outcome.label} {outcome.state.words}{time_taken}{said}", file=self._stream)
            self._stream.flush()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines that change: what runs now, and how many are left."""
        from rich.text import Text

        now = time.monotonic()
        spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(now * 8) % 10]
        room = max(options.max_width // 8, 1) if options.max_width else 1
        for label, since in list(self._running.items())[: max(room, 8)]:
            yield Text.assemble((spinner, "blue"), " ", label, (f" {now - since:.0f} s", "dim"))
        yield Text(f"{self._ended} of {self._total} ended", style="dim")
