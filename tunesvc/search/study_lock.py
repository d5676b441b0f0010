"""One lock for all caches of a study, for `study.optimize(n_jobs=4)`.

The caches only grow as the study does, so the study's trials are read under the lock too: an older
list after a newer one would look as if trials had been removed. Optuna's own locks are taken
inside, never around it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from optuna.storages import BaseStorage
from optuna.study import Study

from tunesvc.util.optuna_internals import clear_trial_cache, id_of, storage_of

Self = TypeVar("Self")
Given = ParamSpec("Given")
Made = TypeVar("Made")

_LOCKS: WeakKeyDictionary[BaseStorage, dict[int, threading.RLock]] = WeakKeyDictionary()
_OF_LOCKS = threading.Lock()


def lock_of(study: Study) -> threading.RLock:
    """Return the lock of a study, the same for all of its objects in this process."""
    with _OF_LOCKS:
        return _LOCKS.setdefault(storage_of(study), {}).setdefault(
            id_of(study),
            threading.RLock(),
        )


def locked(
    method: Callable[Concatenate[Self, Study, Given], Made],
) -> Callable[Concatenate[Self, Study, Given], Made]:
    """Run a method with a study as first argument under the study's lock."""

    def run(
        self: Self,
        study: Study,
        /,
        *args: Given.args,
        **kwargs: Given.kwargs,
    ) -> Made:
        with lock_of(study):
            # Optuna caches a list for each thread, which may be outdated.
            clear_trial_cache(study)
            return method(self, study, *args, **kwargs)

    return functools.update_wrapper(run, method)
