"""Server-sent events: open pages learn what has changed, and whether what they show is stale.

A page that is slow to listen costs a set of study ids, however much happens: changes are merged until it takes them.
One that takes nothing for a while is dropped, and its browser connects again. The one asynchronous place.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT_S = 15.0
"""A sign of life after so long, so that proxies and browsers keep the connection."""
STALL_S = 10.0
"""A page that takes nothing for so long is dropped."""
RETRY_MS = 1000


@dataclass(frozen=True, slots=True)
class DatabaseOutage:
    """The database is away."""

    since: datetime
    reason: str


@dataclass(slots=True, eq=False)
class Subscription:
    """One open page."""

    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    changed: set[int] = field(default_factory=set)
    position: str = ""
    """Of the last change in `changed`, or that the page was told of."""
    told: bool = False
    """Whether the page knows the present staleness."""


class EventHub:
    """Hears of changes in any thread (an `Audience` of the watcher), and wakes the pages' subscriptions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: set[Subscription] = set()
        self.staleness: DatabaseOutage | None = None
        self._epoch = secrets.token_hex(4)
        self._changes = 0
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def position(self) -> str:
        """Counts the changes: a page at an earlier position than that at which its stream opens has missed one."""
        return f"{self._epoch}-{self._changes}"

    def changed(self, studies: frozenset[int]) -> None:
        """Something was committed for these studies."""
        with self._lock:
            self._changes += 1
            position = self.position
        for one in self._listening():
            one.loop.call_soon_threadsafe(_add, one, studies, position)

    def stale(self, since: datetime, reason: str) -> None:
        """The database is away."""
        self._tell(DatabaseOutage(since, reason))

    def fresh(self) -> None:
        """It is back."""
        self._tell(None)

    def close(self) -> None:
        """End all streams. Repeatable."""
        self.is_closed = True
        self._wake()

    def subscribe(self) -> Subscription:
        """A subscription for the running event loop."""
        made = Subscription(asyncio.get_running_loop(), told=self.staleness is None)
        with self._lock:
            made.position = self.position
            self._subscriptions.add(made)
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget it. Repeatable."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def _tell(self, staleness: DatabaseOutage | None) -> None:
        self.staleness = staleness
        for one in self._listening():
            one.told = False
        self._wake()

    def _wake(self) -> None:
        for one in self._listening():
            one.loop.call_soon_threadsafe(one.woken.set)

    def _listening(self) -> list[Subscription]:
        with self._lock:
            return [one for one in self._subscriptions if not one.loop.is_closed()]


def _add(subscription: Subscription, studies: frozenset[int], position: str) -> None:
    subscription.changed |= studies
    subscription.position = position
    subscription.woken.set()


class EventStream(StreamingResponse):
    """A response that ends when the page goes, takes nothing for `STALL_S`, or the hub closes."""

    def __init__(
        self,
        hub: EventHub,
        *,
        stall_s: float = STALL_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        super().__init__(
            (),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )
        self._hub = hub
        self._stall_s = stall_s
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        subscription = self._hub.subscribe()
        gone = asyncio.create_task(_gone(receive))
        try:
            opened = _event("position", None, subscription.position)
            await self._write(send, f"retry: {RETRY_MS}\n\n{opened}")
            while not gone.done() and not self._hub.is_closed:
                await self._write(send, self._news(subscription) or ": still here\n\n")
                await self._wait(subscription, gone)
        except (TimeoutError, OSError):
            return  # too slow, or gone; not answered to its end, so the server closes the connection
        finally:
            gone.cancel()
            self._hub.unsubscribe(subscription)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, subscription: Subscription, gone: asyncio.Task[None]) -> None:
        woken = asyncio.create_task(_until(subscription.woken))
        await asyncio.wait(
            [woken, gone],
            timeout=self._heartbeat_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        woken.cancel()
        subscription.woken.clear()

    async def _write(self, send: Send, text: str) -> None:
        body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
        await asyncio.wait_for(send(body), self._stall_s)

    def _news(self, subscription: Subscription) -> str:
        news = ""
        if not subscription.told:
            subscription.told = True
            news += _staleness(self._hub.staleness)
        if subscription.changed:
            news += _event("changed", sorted(subscription.changed), subscription.position)
            subscription.changed.clear()
        return news


def _staleness(staleness: DatabaseOutage | None) -> str:
    if staleness is None:
        return _event("fresh", {})
    return _event(
        "stale",
        {"since": staleness.since.isoformat(), "reason": staleness.reason},
    )


def _event(name: str, data: object, position: str = "") -> str:
    told = f"id: {position}\n" if position else ""
    return f"event: {name}\ndata: {json.dumps(data)}\n{told}\n"


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _until(event: asyncio.Event) -> None:
    await event.wait()
