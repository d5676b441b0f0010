"""Tasks that run at the same time, each in a thread; a failure does not affect the others.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def together(tasks: Mapping[str, Callable[[], T]]) -> dict[str, T | Exception]:
    """Run all tasks and wait for them; return each one's result or exception, by name.

    Call it in the main thread, which handles signals meanwhile.
    """
    ended: dict[str, T | Exception] = {}

    def run(name: str, task: Callable[[], T]) -> None:
        try:
            ended[name] = task()
        except Exception as error:  # noqa: BLE001  # the caller decides what it means
            ended[name] = error

    threads = [
        threading.Thread(
            target=run,
            args=(name, task),
            name=f"study {name}",
            daemon=True,
        )
        for name, task in tasks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: ended[name] for name in tasks}
