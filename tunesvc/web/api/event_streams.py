"""Streams of events for clients of the API: changes of studies, and the output of a trial.

A client that lost its connection continues after `Last-Event-ID`. A stream ends after a while, and
when the client's account changes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from tunesvc.client.log_position import log_position
from tunesvc.client.wire_format import encode
from tunesvc.db.people.accounts import Account
from tunesvc.errors import DatabaseUnavailable, StudyNotFound
from tunesvc.queries.rows import LogRow
from tunesvc.web.live.sse import HEARTBEAT, RETRY_MS, EventHub, event_text
from tunesvc.web.live.study_names import NewsReader

LASTS_S = 600.0
PACE_S = 0.5
"""Least time between two events of a stream; changes in between come together."""
_BEGIN = f"retry: {RETRY_MS}\n\n"


async def study_events(hub: EventHub, reader: NewsReader, after: str) -> AsyncGenerator[str]:
    """Yield `changed` with names of studies, and `gap` if changes since `after` are not known.

    Args:
        hub: Source of the changes.
        reader: The client.
        after: Position of the last event that the client has; empty for the newest.
    """
    subscription = hub.subscribe(after, reader.account)
    ends_at = time.monotonic() + LASTS_S
    try:
        opened = "gap" if subscription.has_gap else "position"
        position = "" if subscription.changed else subscription.position
        yield _BEGIN + event_text(opened, {}, position)
        while hub.serves(subscription) and time.monotonic() < ends_at:
            changed, position = set(subscription.changed), subscription.position
            subscription.changed.clear()
            names = await reader.names_of(changed) if changed else ()
            yield event_text("changed", {"studies": names}, position) if names else HEARTBEAT
            await asyncio.sleep(PACE_S)
            if not subscription.changed:
                await subscription.wait()
    except DatabaseUnavailable:
        return  # the client continues where it is
    finally:
        hub.unsubscribe(subscription)


async def log_events(
    hub: EventHub,
    study_id: int,
    read: Callable[[str], tuple[Sequence[LogRow], bool]],
    after: str,
    account: Account | None = None,
) -> AsyncGenerator[str]:
    """Yield `log` for each piece of a trial's output, and `end` once the trial has finished.

    Args:
        hub: Source of the changes.
        study_id: Study of the trial.
        read: Returns the next pieces after a position, and whether the trial has finished.
        after: Position of the last piece that the client has.
        account: Account of the client.
    """
    subscription = hub.subscribe(account=account)
    ends_at = time.monotonic() + LASTS_S
    try:
        yield _BEGIN
        while hub.serves(subscription) and time.monotonic() < ends_at:
            subscription.changed.discard(study_id)
            rows, is_finished = await run_in_threadpool(read, after)
            if rows:
                after = log_position(rows[-1])
                yield "".join(_log_event(row) for row in rows)
                continue
            if is_finished:
                yield event_text("end", {})
                return
            yield HEARTBEAT
            await subscription.wait()
    except (DatabaseUnavailable, StudyNotFound):
        return  # away, deleted, or moved where the user may not view it
    finally:
        hub.unsubscribe(subscription)


def _log_event(row: LogRow) -> str:
    return event_text("log", json.loads(encode(row)), log_position(row))
