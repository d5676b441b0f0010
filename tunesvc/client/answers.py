"""Values that clients return, beside those of `queries`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesvc.db.champions.champion_records import Champion
from tunesvc.db.champions.champion_tenures import Tenure
from tunesvc.queries.cost.outlook import Outlook
from tunesvc.queries.explain.pruning_audit import Audit
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.search.analysis.recommend import Recommendation


@dataclass(frozen=True, slots=True)
class BestTrials:
    """The answer of a study: its recommended trial, or its Pareto front."""

    study: StudyView
    recommendation: Recommendation | None
    """None with several objectives, or without a feasible result."""
    rows: tuple[TrialRow, ...]
    """The recommended trial, then the one with the best observed value if it differs; with several
    objectives the Pareto front."""


@dataclass(frozen=True, slots=True)
class RequestedFinal:
    """A final run that a server runs: a study of its own, and its trial."""

    study: StudyView
    trial: int
    """Number of its trial that runs, or waits."""


@dataclass(frozen=True, slots=True)
class StudyOverview:
    """A study with its answer and its newest trials."""

    best: BestTrials
    newest: tuple[TrialRow, ...]
    forecast: str | None
    """The improvement to expect; None with several objectives, or with too few trials."""
    outlook: Outlook | None
    """Cost and gain of further trials; None before the first finished trial."""
    audit: Audit | None
    """The measured error rate of the pruner; None if it audits nothing."""

    @property
    def study(self) -> StudyView:
        """The study."""
        return self.best.study


@dataclass(frozen=True, slots=True)
class Announcement:
    """An announcement of a promotion, made or due."""

    champion_id: int
    hook: str
    """`on_promote` or `registry`."""
    attempts: int
    """Number of times that it was begun."""
    delivered_at: datetime | None
    error: str
    """Error of the last attempt, or the reason of the cancellation; empty without one."""
    cancelled_at: datetime | None = None
    """Set if it is made no more."""

    @property
    def is_due(self) -> bool:
        """True if it is still to be made."""
        return self.delivered_at is None and self.cancelled_at is None


@dataclass(frozen=True, slots=True)
class ChampionHistory:
    """The champions of a family."""

    champions: tuple[Champion, ...]
    """The newest first."""
    tenures: tuple[Tenure, ...]
    """The newest first."""
    announcements: tuple[Announcement, ...]
    """Those of the tenures, and all that are due; the oldest first."""

    @property
    def current(self) -> Champion:
        """Today's champion."""
        return self.champions[0]


@dataclass(frozen=True, slots=True)
class FigureData:
    """A figure of a study, as Plotly's JSON."""

    title: str
    note: str
    """Shown and omitted data, or the reason why there is no figure."""
    figure: Mapping[str, Any] | None
    """`data` and `layout` for Plotly; None if there is nothing to draw."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The program that answers, and for whom."""

    version: str
    user: str
    """Name of the user in the log of requests."""


@dataclass(frozen=True, slots=True)
class StudyNews:
    """Studies that have changed."""

    studies: tuple[str, ...]
    """Their names."""
    position: str
    """Position after this change, to continue there; empty where that is not possible."""
    is_gap: bool = False
    """True if earlier changes may have been missed: all studies may have changed."""
