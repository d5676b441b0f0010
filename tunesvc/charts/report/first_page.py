"""First page of a report, in plain words: what was tuned, the answer, its cost, and what next.

Pure: sentences from rows that `study_report` has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesvc.queries.cost.outlook import Outlook
from tunesvc.queries.cost.spending import EffortUnit, FailureSpending
from tunesvc.queries.health import Health, HealthFinding
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.util.formatting import duration, parameter

if TYPE_CHECKING:
    from tunesvc.search.analysis.recommend import Recommendation

NAMED_MAX = 8
"""Most parameters that are listed."""
_WASTED_MIN = 0.1
"""Smallest share of failures in what was spent that is named."""


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The study and its figures, from which a first page is written."""

    study: StudyView
    answer: Recommendation | None
    best: TrialRow | None
    """The recommended trial; with several objectives the first of the front."""
    outlook: Outlook | None
    health: Health
    spent: Sequence[FailureSpending]

    def sentences(self) -> list[tuple[str, str]]:
        """Return topics with their sentences."""
        parts = {
            "What was tuned": self._tuned(),
            "The answer": self._answered(),
            "How sure": self._certainty(),
            "What it cost": self._cost(),
            "What more would bring": self._more(),
            "Recommendation": self._recommended(),
        }
        return [(topic, text) for topic, text in parts.items() if text]

    def _tuned(self) -> str:
        study = self.study
        settings = [] if study.spec is None else list(study.spec.parameters)
        named = ", ".join(settings[:NAMED_MAX])
        if len(settings) > NAMED_MAX:
            named += f" and {len(settings) - NAMED_MAX} more"
        what = _count(len(settings), "setting") + f" ({named})" if settings else "Settings"
        goals = " and ".join(
            f"{one.name} as {'high' if one.maximize else 'low'} as possible"
            for one in study.objectives
        )
        tried = f"{_count(study.counts.done, 'combination')} of them {_were(study.counts.done)}"
        description = "" if study.spec is None else study.spec.description.strip()
        about = f" {description.rstrip('.')}." if description else ""
        return f"{what}, to make {goals}. {tried} tried.{about}"

    def _answered(self) -> str:
        if self.best is None:
            return "There is none yet: no combination has given a valid result."
        pairs = zip(self.study.objectives, self.best.values or (), strict=False)
        values = " and ".join(f"{objective.name} {value:.4g}" for objective, value in pairs)
        chosen = ", ".join(
            f"{name} = {parameter(value)}"
            for name, value in list(self.best.params.items())[:NAMED_MAX]
        )
        if len(self.study.objectives) > 1:
            return (
                f"Several compromises, none of which beats another in everything. One has "
                f"{values}: {chosen}."
            )
        return f"{chosen}. This gave {values} (trial {self.best.number})."

    def _certainty(self) -> str:
        answer = self.answer
        if answer is None or self.best is None:
            return ""
        if answer.confirmed is not None and answer.confirmed.low is not None:
            one = answer.confirmed
            return (
                f"Well tested: {_count(len(one.values), 'repeat')} gave {answer.mean:.4g} on "
                f"average, and the true value lies between {one.low:.4g} and {one.high:.4g} with "
                "95 % certainty."
            )
        if answer.deviation is not None:
            return (
                "Results vary by chance, so a single good one may be luck. The expected value of "
                f"this combination is {answer.mean:.4g} ± {answer.deviation:.2g}. Repeating the "
                "best ones would make sure."
            )
        if self.study.counts.complete < 10:
            return "Not very sure: only a few combinations have been tried."
        return (
            "The results show no sign of chance, so the best one seen is the best known. "
            f"{self._measured(self.best)}"
        )

    def _measured(self, best: TrialRow) -> str:
        objective = self.study.objectives[0]
        error = self.study.standard_error(best, objective)
        if error is None:
            return "It was measured once."
        over = "parts of the data" if objective.step == "fold" else "repeats"
        return f"It is an average over {over}, give or take {error:.2g}."

    def _cost(self) -> str:
        study = self.study
        done = study.counts.done
        time = duration(study.active_s)
        if study.cost is not None:
            text = f"{study.cost_text}, in {time}."
            if done:
                text += f" That is {study.money(study.cost / done)} for each combination."
        elif study.gpu_hours:
            text = f"{study.gpu_hours:.3g} GPU hours, in {time}."
        else:
            text = f"{time} of running time."
        lost = sum(one.amount for one in self.spent if one.failure is not None)
        total = sum(one.amount for one in self.spent)
        if total > 0 and lost >= _WASTED_MIN * total:
            unit = EffortUnit.of(study)
            text += f" {lost / total:.0%} of it ({unit.format(lost)}) went into failures."
        return text

    def _more(self) -> str:
        if self.outlook is None:
            return ""
        if self.outlook.gain is None:
            return f"This cannot be said: {self.outlook.reason}."
        cost = f"another {self.outlook.trials} combinations, for about {self.outlook.effort_text}"
        gain, now = self.outlook.gain, None if self.best is None else self.best.value
        share = f", {gain.mean / abs(now):.1%} of today's value" if now else ""
        text = (
            f"With {cost}, {self.outlook.metric} is expected to improve by about {gain.mean:.2g}"
            f"{share}. With 90 % certainty the improvement is between {gain.low:.2g} and "
            f"{gain.high:.2g}."
        )
        if self.answer is not None and self.answer.deviation is not None:
            text += " A part of that would be luck, as results vary by chance."
        return text

    def _recommended(self) -> str:
        if self.best is None:
            return "Fix first: find out why nothing has succeeded, before spending more."
        if (wasted := self._finding("wasted")) is not None:
            return f"Fix first. {wasted.text} {_plain(wasted.advice)}"
        if (worth := self._finding("worth")) is not None:
            return f"Stop. More would hardly pay. {_plain(worth.advice)}"
        outlook = self.outlook
        narrow = self._finding("narrow")
        if narrow is not None and narrow.severity == "warn":
            return f"Go on, with wider ranges. {narrow.text}"
        if outlook is None or outlook.gain is None:
            return "Too early to say whether more would pay."
        return (
            f"Go on if an improvement of about {outlook.gain.mean:.2g} in {outlook.metric} is "
            f"worth {outlook.effort_text}; otherwise stop here."
        )

    def _finding(self, name: str) -> HealthFinding | None:
        for check, finding in self.health.findings:
            if check.name == name:
                return finding
        return None


def _plain(text: str) -> str:
    return text.replace("`", "")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
