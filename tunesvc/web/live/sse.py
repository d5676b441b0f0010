"""Server-sent events: notify open pages of changes, and of an unavailable database.

A slow page costs only a set of study ids, as its changes are merged until it reads them. A page
that reads nothing for a while is dropped, and its browser connects again. Only this module is
asynchronous.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tunesvc.db.people.accounts import Account
from tunesvc.errors import DatabaseUnavailable
from tunesvc.web.live.study_names import NewsReader

HEARTBEAT_S = 15.0
"""Time between heartbeats, so that proxies and browsers keep the connection."""
STALL_S = 10.0
"""A page that reads nothing for this long is dropped."""
RETRY_MS = 1000
HEARTBEAT = ": still here\n\n"
STREAMS_MAX = 600
"""Most streams at a time, because each takes a connection."""
HISTORY = 2_000
"""Newest changes that a subscriber which was away can still get."""


@dataclass(frozen=True, slots=True)
class DatabaseOutage:
    """An outage of the database."""

    since: datetime
    reason: str


@dataclass(slots=True, eq=False)
class Subscription:
    """One open page."""

    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    changed: set[int] = field(default_factory=set)
    position: str = ""
    """Position of the last change in `changed`, or of the last one that was sent."""
    knows_outage: bool = False
    """True if the page was sent the current outage, or its end."""
    account: Account | None = None
    """Account that it was opened with; None for the owner of the machine."""
    is_ended: bool = False
    """True if that account has changed."""
    has_gap: bool = False
    """True if changes after the requested position are not known any more."""

    async def wait(self) -> None:
        """Wait for news, but not longer than until the next heartbeat is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                await self.woken.wait()
        self.woken.clear()


class EventHub:
    """Forwards changes from any thread to the pages' subscriptions: the watcher's listener."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self.outage: DatabaseOutage | None = None
        self._epoch = secrets.token_hex(4)
        self._changes = 0
        self._history: deque[frozenset[int]] = deque(maxlen=HISTORY)
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def position(self) -> str:
        """Count of changes: a page with an earlier position than its opened stream missed one."""
        return f"{self._epoch}-{self._changes}"

    def changed(self, studies: frozenset[int]) -> None:
        """Notify pages of a commit for these studies."""
        with self._lock:
            self._changes += 1
            self._history.append(studies)
            position = self.position
        self._in_loops(lambda one: _add(one, studies, position))

    def stale(self, since: datetime, reason: str) -> None:
        """Notify pages that the database is unavailable."""
        self._set_outage(DatabaseOutage(since, reason))

    def fresh(self) -> None:
        """Notify pages that the database is available again."""
        self._set_outage(None)

    def close(self) -> None:
        """End all streams. Repeatable."""
        self.is_closed = True
        self._wake()

    def serves(self, subscription: Subscription) -> bool:
        """Return True while a stream may continue."""
        return not (self.is_closed or subscription.is_ended)

    def accounts(self) -> list[Account]:
        """Return the accounts of open streams."""
        return [one.account for one in self._open_subscriptions() if one.account is not None]

    def end(self, accounts: Collection[Account]) -> None:
        """End the streams that were opened with these accounts."""
        for one in self._open_subscriptions():
            one.is_ended = one.is_ended or one.account in accounts
        if accounts:
            self._wake()

    def subscribe(self, after: str = "", account: Account | None = None) -> Subscription:
        """Return a new subscription for the running event loop.

        Args:
            after: Position of the last change that is known; empty for the newest.
            account: Account that it is opened with, as long as that does not change.
        """
        loop = asyncio.get_running_loop()
        subscription = Subscription(loop, knows_outage=self.outage is None, account=account)
        with self._lock:
            subscription.position = self.position
            missed = self._since(after or self.position)
            subscription.has_gap = missed is None
            subscription.changed = missed or set()
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription. Repeatable."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def _since(self, position: str) -> set[int] | None:
        """Return the studies that changed after a position; None if that is not known."""
        epoch, _, count = position.partition("-")
        if epoch != self._epoch or not count.isdecimal():
            return None
        missed = self._changes - int(count)
        if not 0 <= missed <= len(self._history):
            return None
        newest = list(self._history)[len(self._history) - missed :]
        return set().union(*newest)

    def _set_outage(self, outage: DatabaseOutage | None) -> None:
        self.outage = outage
        for one in self._open_subscriptions():
            one.knows_outage = False
        self._wake()

    def _wake(self) -> None:
        self._in_loops(lambda one: one.woken.set())

    def _in_loops(self, act: Callable[[Subscription], None]) -> None:
        """Act on every subscription, in its event loop, which is woken once for all."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Subscription]] = {}
        for one in self._open_subscriptions():
            by_loop.setdefault(one.loop, []).append(one)
        for loop, ones in by_loop.items():
            loop.call_soon_threadsafe(_for_each, ones, act)

    def _open_subscriptions(self) -> list[Subscription]:
        with self._lock:
            return [one for one in self._subscriptions if not one.loop.is_closed()]


def _for_each(ones: list[Subscription], act: Callable[[Subscription], None]) -> None:
    for one in ones:
        act(one)


def _add(subscription: Subscription, studies: frozenset[int], position: str) -> None:
    subscription.changed |= studies
    subscription.position = position
    subscription.woken.set()


class EventStream(StreamingResponse):
    """Response that ends when its events end, or the client disconnects or reads nothing for
    `STALL_S`."""

    def __init__(self, events: AsyncGenerator[str], *, stall_s: float = STALL_S) -> None:
        headers = {"X-Accel-Buffering": "no"}
        self._events = events
        super().__init__(self._events, media_type="text/event-stream", headers=headers)
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(message)

        # Too slow, or disconnected: the response is left incomplete, so that the server closes the
        # connection.
        with suppress(OSError, ClientDisconnect):
            async with aclosing(self._events):
                await super().__call__(scope, receive, send_in_time)


async def page_events(hub: EventHub, reader: NewsReader) -> AsyncGenerator[str]:
    """Yield what open pages need to know, until the hub closes or the account changes."""
    subscription = hub.subscribe(account=reader.account)
    try:
        opened = event_text("position", None, subscription.position)
        yield f"retry: {RETRY_MS}\n\n{opened}"
        while hub.serves(subscription):
            yield await _news(hub, subscription, reader) or HEARTBEAT
            await subscription.wait()
    finally:
        hub.unsubscribe(subscription)


async def _news(hub: EventHub, subscription: Subscription, reader: NewsReader) -> str:
    text = ""
    if not subscription.knows_outage:
        subscription.knows_outage = True
        text += _outage_event(hub.outage)
    changed, position = set(subscription.changed), subscription.position
    with suppress(DatabaseUnavailable):  # they are sent with the end of the outage
        if ids := await reader.ids_of(changed):
            text += event_text("changed", ids, position)
        subscription.changed -= changed
    return text


def _outage_event(outage: DatabaseOutage | None) -> str:
    if outage is None:
        return event_text("fresh", {})
    return event_text("stale", {"since": outage.since.isoformat(), "reason": outage.reason})


def event_text(name: str, data: object, position: str = "") -> str:
    """Return an event; `position` is where a client continues after it."""
    id_line = f"id: {position}\n" if position else ""
    return f"event: {name}\ndata: {json.dumps(data)}\n{id_line}\n"
