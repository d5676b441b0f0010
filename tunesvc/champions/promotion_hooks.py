"""The hooks of a family: where its promotions are announced.

A watch takes them from its study file, and keeps them with the family's study. Promotions by hand
and deliveries without a file take those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from tunesvc.db import study_records
from tunesvc.db.champions import promotion_deliveries
from tunesvc.spec import StudySpec
from tunesvc.spec.sections.watch_keys import Watch


@dataclass(frozen=True, slots=True)
class PromotionHooks:
    """The hooks of a family."""

    addresses: Mapping[str, str]
    """Values by hook: a command, a URL, or the name of a registry."""
    folder: str
    """Folder where a command runs."""


def hooks_of(spec: StudySpec | None, folder: str | None) -> PromotionHooks:
    """Return the hooks of a spec; none without one."""
    options = (spec and spec.watch) or Watch()
    hooks = {"on_promote": options.on_promote, "registry": options.registry}
    addresses = {hook: address for hook, address in hooks.items() if address is not None}
    return PromotionHooks(addresses, folder or ".")


def find_hooks(connection: sa.Connection, family: str) -> PromotionHooks | None:
    """Return the hooks that are kept with a family's study; None if there is no such study."""
    record = study_records.look_up(connection, family)
    return None if record is None else hooks_of(record.spec, record.source_dir)


def keep_hooks(connection: sa.Connection, spec: StudySpec) -> None:
    """Keep the hooks of a study file with the study of its name, if there is one. Repeatable."""
    record = study_records.look_up(connection, spec.name)
    if record is None or record.spec is None or record.spec.watch == spec.watch:
        return
    kept = record.spec.model_copy(update={"watch": spec.watch})
    study_records.renew(connection, record, kept, record.source_text, record.source_dir)


def plan_by_hand(connection: sa.Connection, champion_id: int, family: str) -> None:
    """Plan the deliveries of a promotion or rollback by hand, in its transaction.

    If the family's study was deleted, plans those of the last promotion: the next watch knows where
    they go.
    """
    kept = find_hooks(connection, family)
    if kept is None:
        hooks = promotion_deliveries.last_planned(connection, family)
    else:
        hooks = tuple(kept.addresses)
    promotion_deliveries.plan(connection, champion_id, hooks)
