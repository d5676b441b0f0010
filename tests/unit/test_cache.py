"""Cache shared by all open pages: when a value is recomputed, and by which request."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tunesvc.web.live.cache import StaleWhileRevalidateCache


class Steps:
    """A clock that a test steps."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Steps:
    return Steps()


@pytest.fixture
def kept(clock: Steps) -> StaleWhileRevalidateCache:
    return StaleWhileRevalidateCache(limit=2, clock=clock, effort=clock.now)


def made(clock: Steps, value: str, cost_s: float = 1.0) -> Any:
    """Make a value, slowly."""

    def make(_: Any) -> str:
        clock.at += cost_s
        return value

    return make


def test_a_value_is_made_once_per_stamp(kept: StaleWhileRevalidateCache, clock: Steps) -> None:
    assert kept.get("a", "1", made(clock, "first")).value == "first"
    assert kept.get("a", "1", made(clock, "never")).value == "first"


def test_it_is_made_again_no_sooner_than_twenty_times_its_cost(
    kept: StaleWhileRevalidateCache, clock: Steps
) -> None:
    kept.get("a", "1", made(clock, "first", 100))
    clock.at += 100  # the first time says little
    kept.get("a", "2", made(clock, "second"))
    clock.at += 15
    old = kept.get("a", "3", made(clock, "third"))
    assert (old.value, old.age_s, old.fresh_in_s) == ("second", 15, 5)
    clock.at += 5
    new = kept.get("a", "3", made(clock, "third"))
    assert (new.value, new.fresh_in_s) == ("third", 0)


def test_of_what_is_over_the_newest_is_made_at_once(
    kept: StaleWhileRevalidateCache, clock: Steps
) -> None:
    kept.get("a", "1", made(clock, "first"))
    assert kept.get("a", "2", made(clock, "second"), is_final=True).value == "second"


def test_the_least_lately_used_is_given_up(kept: StaleWhileRevalidateCache, clock: Steps) -> None:
    for key in ("a", "b", "a", "c"):
        kept.get(key, "1", made(clock, key))
    assert kept.get("a", "1", made(clock, "again")).value == "a"
    assert kept.get("b", "1", made(clock, "again")).value == "again"


def test_a_maker_is_given_what_was_there_before(kept: StaleWhileRevalidateCache) -> None:
    kept.get("a", "1", lambda before: [before])
    assert kept.get("a", "2", lambda before: [*before, 2], is_cheap=True).value == [None, 2]


def test_a_slow_value_is_announced_once_it_is_there(kept: StaleWhileRevalidateCache) -> None:
    go, announced = threading.Event(), threading.Event()

    def slow(_: Any) -> str:
        go.wait(10)
        return "slow"

    assert kept.get_or_refresh("a", "1", slow, wait_s=0.01, done=announced.set) is None
    go.set()
    assert announced.wait(10)
    held = kept.get_or_refresh("a", "1", slow, wait_s=0.01, done=announced.clear)
    assert held is not None
    assert held.value == "slow"


def test_many_requests_at_once_compute_a_value_once(kept: StaleWhileRevalidateCache) -> None:
    made_by = []
    go = threading.Event()

    def make(_: Any) -> int:
        go.wait(10)
        made_by.append(threading.get_ident())
        return len(made_by)

    asking = [threading.Thread(target=kept.get, args=("a", "1", make)) for _ in range(5)]
    for one in asking:
        one.start()
    go.set()
    for one in asking:
        one.join(10)
    assert len(made_by) == 1


def test_a_failed_value_is_not_announced(kept: StaleWhileRevalidateCache) -> None:
    """Otherwise a page that looks again because of it would make it fail again, for ever."""
    may_fail, announced = threading.Event(), threading.Event()

    def make(_: object) -> None:
        may_fail.wait(10)
        raise TimeoutError

    assert (
        kept.get_or_refresh(
            "key", "1", make, wait_s=0, done=announced.set, forgiven=(TimeoutError,)
        )
        is None
    )
    (thread,) = (one for one in threading.enumerate() if one.name == "tunesvc-making")
    may_fail.set()
    thread.join(10)
    assert not announced.is_set()
    assert kept.get("key", "1", lambda _: "made").value == "made"
