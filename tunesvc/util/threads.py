"""Several things at a time in one process, each in a thread of its own: one that fails is no matter to the others.

Imports nothing of tunesvc.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def together(tasks: Mapping[str, Callable[[], T]]) -> dict[str, T | Exception]:
    """Run all of them and wait for each; by name, what it returned or raised.

    Signals are heard meanwhile, by the main thread, which has to be the one that calls this.
    """
    ended: dict[str, T | Exception] = {}

    def run(name: str, task: Callable[[], T]) -> None:
        try:
            ended[name] = task()
        except Exception as error:  # noqa: BLE001  # whoever asked for it decides what it means
            ended[name] = error

    threads = [
        threading.Thread(target=run, args=(name, task), name=f"study {name}", daemon=True)
        for name, task in tasks.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: ended[name] for name in tasks}
