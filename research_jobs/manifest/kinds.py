"""What somebody can be told of: the kinds that `alerts` may name, and how bad each is.

Nothing else keeps a list of them: a new kind is a line here and the place that finds it.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind", "Severity"]


class Severity(str, Enum):
    """How bad something is, from the least; ``critical`` alone is told in quiet hours."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def __str__(self) -> str:
        return self.value

    @property
    def order(self) -> int:
        """int: its place from the least to the worst."""
        return list(Severity).index(self)


class Kind(str, Enum):
    """A kind of condition, with what a message says of it.

    Attributes
    ----------
    severity : Severity
    words : str
        What a sentence says of one subject: ``"failed"``.
    over : str
        The same when it is over: ``"runs again"``.
    """

    severity: Severity
    words: str
    over: str

    FAILED = "failed", Severity.WARNING, "failed", "runs again"
    REFUSED = "refused", Severity.WARNING, "was refused", "is published again"
    BLOCKED = "blocked", Severity.WARNING, "is blocked", "is no longer blocked"
    LATE = "late", Severity.WARNING, "is late", "is no longer late"
    MISSING = "missing", Severity.WARNING, "misses partitions", "has all its partitions"
    MISSED_TICK = "missed_tick", Severity.WARNING, "missed a tick", "made up for its tick"
    SLOW = "slow", Severity.INFO, "is slower than usual", "is as fast as usual"
    LARGE = "large", Severity.INFO, "is larger than usual", "is as large as usual"
    DISK = "disk", Severity.CRITICAL, "is nearly full", "has space again"
    STORE = "store", Severity.CRITICAL, "is not there", "is there again"
    CLOCK = "clock", Severity.CRITICAL, "is wrong", "is right again"
    CODE = "code", Severity.CRITICAL, "does not load", "loads again"
    SERVICE = "service", Severity.CRITICAL, "does not answer", "answers again"
    TICK_FAILED = "tick_failed", Severity.CRITICAL, "fails", "works again"
    CHANNEL = "channel", Severity.CRITICAL, "does not deliver", "delivers again"
    BACKUP = "backup", Severity.WARNING, "is not proven", "is proven again"
    MANIFEST = "manifest", Severity.WARNING, "has a mistake", "is right again"

    def __new__(cls, value: str, severity: Severity, words: str, over: str) -> Kind:  # noqa: PYI034
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.severity = severity
        kind.words = words
        kind.over = over
        return kind

    def __str__(self) -> str:
        return self.value
