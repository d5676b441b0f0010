"""The result of one look at a family. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tunesvc.db.champions.champion_records import Champion
from tunesvc.drift.drift_report import DriftReport

OUTCOMES = {
    "first": "the first champion",
    "unchanged": "the data are those of the champion",
    "steady": "the data have changed, and the champion still fits",
    "promoted": "the challenger is the new champion",
    "kept": "the champion stays",
    "undecided": "champion and challenger cannot be compared",
    "declined": "a user has rolled back the promotion for these data",
    "waiting": "the look continues when a study has ended",
    "interrupted": "interrupted; the next watch continues",
}
"""Results of a look, and their meanings."""


@dataclass(frozen=True, slots=True)
class WatchResult:
    """The result of one look at a family."""

    family: str
    outcome: str
    """One of `OUTCOMES`."""
    reason: str
    """In a sentence."""
    data_version: str | None = None
    """None if it was interrupted before that was known."""
    champion: Champion | None = None
    """Today's champion; None if it has none yet."""
    drift: DriftReport | None = None
    """None if versions were not compared."""
    degradation: float | None = None
    """The p-value that the champion is worse on these data; None if that was not tested."""
    undelivered: int = 0
    """Announcements that failed, to be tried again."""
    waits_for: str = ""
    """Name of the study that the look waits for; empty for none."""

    @property
    def detail(self) -> str:
        """The reason without what the outcome says already."""
        return self.reason.removeprefix(OUTCOMES[self.outcome]).lstrip(": ")
