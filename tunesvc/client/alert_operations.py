"""Operations of every client on alerts: `client.alerts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunesvc.db.alerts import AlertTarget


class AlertOperations(Protocol):
    """The user's own alert targets: where news about studies are delivered."""

    def targets(self) -> tuple[AlertTarget, ...]:
        """Return the user's targets, oldest first, with their last errors."""
        ...

    def add(self, url: str, *, study: str | None = None, kinds: Sequence[str] = ()) -> int:
        """Add a target; return its id.

        Args:
            url: address as Apprise reads it, such as `slack://TOKEN/CHANNEL`.
            study: name of the study; None for all studies that the user submits.
            kinds: `finished`, `failed`, `stalled`, `target`, `budget` or `promoted`; by default
                all.

        Raises:
            SpecError: Apprise does not know the address, or a kind does not exist.
            StudyNotFound: there is no such study.
        """
        ...

    def remove(self, target_id: int) -> None:
        """Remove a target of the user. Repeatable."""
        ...

    def test(self, target_id: int) -> str:
        """Send a test message to a target of the user; return the error, empty if there is none.

        Raises:
            SpecError: the user has no such target.
        """
        ...
