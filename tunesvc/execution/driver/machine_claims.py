"""Which command has what of this machine: each starts a local Ray of its own, and no two of them may have one GPU.

Claims are files below `TUNE_HOME`, held by locks that the kernel frees when their process dies. Imports no Ray.
"""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesvc.db.embedded.file_lock import FileLock
from tunesvc.errors import ExecutorError, MachineBusy
from tunesvc.spec import StudySpec
from tunesvc.util.paths import home_directory

_NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Demand:
    """What studies ask of the machine together; None is all that is free."""

    cpu: float | None = None
    gpu: float | None = None
    least_cpu: float = 1.0
    """Without so much, one of them cannot run at all."""
    least_gpu: float = 0.0

    @classmethod
    def of(cls, specs: Sequence[StudySpec], *, may_bring_gpus: bool = False) -> Demand:
        """Add up what studies ask for; one without `parallelism` asks for all.

        `may_bring_gpus`: an objective may ask for GPUs by itself, see `ray.tune.with_resources`.
        """
        trials = [(spec.resources.cpu * spec.resources.workers, spec.parallelism) for spec in specs]
        on_gpus = [(spec.resources.gpu * spec.resources.workers, spec.parallelism) for spec in specs]
        return cls(
            _total(trials),
            None if may_bring_gpus else _total(on_gpus),
            max((cpu for cpu, _ in trials), default=1.0),
            max((gpu for gpu, _ in on_gpus), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class MachineClaim:
    """What a command has of the machine."""

    studies: tuple[str, ...]
    pid: int
    cpu: float
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        named = " and ".join(repr(study) for study in self.studies)
        return f"{'study' if len(self.studies) == 1 else 'studies'} {named} (process {self.pid})"


class Machine:
    """This machine's CPUs and GPUs, and the claims on them."""

    def __init__(self, *, cpus: int, gpus: tuple[str, ...], folder: Path) -> None:
        """`gpus`: as `CUDA_VISIBLE_DEVICES` names them. Claims lie in `folder`."""
        self.cpus = cpus
        self.gpus = gpus
        self._folder = folder

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine, as far as this process may use it."""
        return cls(cpus=_cpus(), gpus=_gpus(), folder=_folder())

    def claim(self, studies: Sequence[str], demand: Demand) -> HeldClaim:
        """Claim what is asked for, or what is left of it, until the holding is released or this process dies.

        Raises:
            MachineBusy: too little is left; the text names what, and the studies that have it.
        """
        with FileLock.exclusive(self._folder / "lock"):
            others = self._others()
            cpu, gpus = self._left(others, demand)
            wanted = len(gpus) if demand.gpu is None else math.ceil(demand.gpu)
            claim = MachineClaim(
                tuple(studies), os.getpid(), cpu if demand.cpu is None else min(cpu, demand.cpu), gpus[:wanted]
            )
            return HeldClaim(claim, self._folder / f"{time.time_ns()}-{claim.pid}.json")

    def _left(self, others: Sequence[MachineClaim], demand: Demand) -> tuple[float, tuple[str, ...]]:
        """Return the CPUs and GPUs that no other has.

        What the whole machine could not give is not waited for: Ray says so.
        """
        cpu = self.cpus - sum(other.cpu for other in others)
        if cpu < demand.least_cpu <= self.cpus:
            raise MachineBusy(_busy("CPUs", [other for other in others if other.cpu]))
        taken = {gpu for other in others for gpu in other.gpus}
        gpus = tuple(gpu for gpu in self.gpus if gpu not in taken)
        if len(gpus) < demand.least_gpu <= len(self.gpus):
            raise MachineBusy(_busy("GPUs", [other for other in others if other.gpus]))
        return max(cpu, 0.0), gpus

    def _others(self) -> list[MachineClaim]:
        """Return the claims of processes that live; what dead ones have left is removed."""
        claims = []
        for file in sorted(self._folder.glob("*.json")):
            if (dead := FileLock.if_free(file)) is None:
                claim = json.loads(file.read_text())
                claims.append(MachineClaim(tuple(claim["studies"]), claim["pid"], claim["cpu"], tuple(claim["gpus"])))
            else:
                file.unlink()
                dead.release()
        return claims


class HeldClaim:
    """A claim, for as long as it is held."""

    def __init__(self, claim: MachineClaim, file: Path) -> None:
        self.claim = claim
        self._file = file
        self._lock = FileLock.exclusive(file)
        file.write_text(json.dumps(asdict(claim)))

    def release(self) -> None:
        """Let others have it. Repeatable."""
        self._file.unlink(missing_ok=True)
        self._lock.release()


def _total(parts: Iterable[tuple[float, int | None]]) -> float | None:
    total = 0.0
    for amount, parallelism in parts:
        if amount and parallelism is None:
            return None
        total += amount * (parallelism or 0)
    return total


def _busy(what: str, holders: Sequence[MachineClaim]) -> str:
    return (
        f"this machine's {what}, in use by {' and '.join(map(str, holders))}. One command runs several studies side by "
        "side (`tune run a.yaml b.yaml`), and so do several where each study says its `parallelism`"
    )


def _folder() -> Path:
    """Return where claims lie; a home may be shared by machines, or be read-only.

    Raises:
        ExecutorError: no place can be written.
    """
    roots = [home_directory(), Path(tempfile.gettempdir(), f"tunesvc-{os.getuid()}")]
    for root in roots:
        folder = root / "machine" / (platform.node() or "localhost")
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise ExecutorError(f"neither {roots[0]} nor {roots[1]} can be written: set TUNE_HOME to a folder that can")


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    """Name the GPUs that this process may use. Those of other vendors than NVIDIA have one name together."""
    pretended, visible = os.environ.get("TUNE_LOCAL_GPUS", ""), os.environ.get("CUDA_VISIBLE_DEVICES")
    if pretended.isdecimal():
        return tuple(str(number) for number in range(int(pretended)))
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1"))
    count = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return tuple(str(number) for number in range(count)) or ("all",)
