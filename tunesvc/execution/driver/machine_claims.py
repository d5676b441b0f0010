"""Claims of commands on this machine's CPUs and GPUs.

Each command starts a local Ray of its own, and no two may use the same GPU.

Claims are files below `TUNE_HOME`, held by locks that the kernel frees when their process dies.
Imports no Ray.
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
    """Total request of a command's studies. None means all that is free."""

    cpu: float | None = None
    gpu: float | None = None
    least_cpu: float = 1.0
    """Minimum: with less, one of the studies cannot run at all."""
    least_gpu: float = 0.0

    @classmethod
    def of(cls, specs: Sequence[StudySpec], *, may_bring_gpus: bool = False) -> Demand:
        """Add up the requests of studies. One without `parallelism` asks for everything.

        `may_bring_gpus`: an objective may request GPUs by itself, see `ray.tune.with_resources`.
        """
        cpus = [(spec.resources.cpu * spec.resources.workers, spec.parallelism) for spec in specs]
        gpus = [(spec.resources.gpu * spec.resources.workers, spec.parallelism) for spec in specs]
        return cls(
            cpu=_total(cpus),
            gpu=None if may_bring_gpus else _total(gpus),
            least_cpu=max((cpu for cpu, _ in cpus), default=1.0),
            least_gpu=max((gpu for gpu, _ in gpus), default=0.0),
        )


@dataclass(frozen=True, slots=True)
class MachineClaim:
    """CPUs and GPUs claimed by a command."""

    studies: tuple[str, ...]
    pid: int
    cpu: float
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        names = " and ".join(repr(study) for study in self.studies)
        noun = "study" if len(self.studies) == 1 else "studies"
        return f"{noun} {names} (process {self.pid})"


class Machine:
    """This machine's CPUs and GPUs, and the claims on them."""

    def __init__(self, *, cpus: int, gpus: tuple[str, ...], folder: Path) -> None:
        """`gpus` are named as in `CUDA_VISIBLE_DEVICES`. `folder` contains the claims."""
        self.cpus = cpus
        self.gpus = gpus
        self._folder = folder

    @classmethod
    def here(cls) -> Machine:
        """Return the part of this machine that this process may use."""
        return cls(cpus=_cpus(), gpus=_gpus(), folder=_folder())

    def claim(self, studies: Sequence[str], demand: Demand) -> HeldClaim:
        """Claim the demand, or what is free of it, until release or this process's end.

        Raises:
            MachineBusy: less than the minimum is free. The text names the resource and the studies
                that use it.
        """
        with FileLock.exclusive(self._folder / "lock"):
            others = self._others()
            cpu, gpus = self._left(others, demand)
            if demand.cpu is not None:
                cpu = min(cpu, demand.cpu)
            if demand.gpu is not None:
                gpus = gpus[: math.ceil(demand.gpu)]
            claim = MachineClaim(tuple(studies), os.getpid(), cpu, gpus)
            return HeldClaim(claim, self._folder / f"{time.time_ns()}-{claim.pid}.json")

    def _left(
        self,
        others: Sequence[MachineClaim],
        demand: Demand,
    ) -> tuple[float, tuple[str, ...]]:
        """Return the free CPUs and GPUs.

        A demand that exceeds the whole machine is not an error here, because waiting would not
        help: Ray reports it.
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
        """Return the claims of living processes, and remove those of dead ones."""
        claims = []
        for file in sorted(self._folder.glob("*.json")):
            lock = FileLock.if_free(file)
            if lock is None:
                claims.append(_read_claim(file))
            else:
                file.unlink()
                lock.release()
        return claims


class HeldClaim:
    """A claim of this process."""

    def __init__(self, claim: MachineClaim, file: Path) -> None:
        self.claim = claim
        self._file = file
        self._lock = FileLock.exclusive(file)
        file.write_text(json.dumps(asdict(claim)))

    def release(self) -> None:
        """Release the claim. Repeatable."""
        self._file.unlink(missing_ok=True)
        self._lock.release()


def _read_claim(file: Path) -> MachineClaim:
    fields = json.loads(file.read_text())
    return MachineClaim(
        studies=tuple(fields["studies"]),
        pid=fields["pid"],
        cpu=fields["cpu"],
        gpus=tuple(fields["gpus"]),
    )


def _total(parts: Iterable[tuple[float, int | None]]) -> float | None:
    total = 0.0
    for amount, parallelism in parts:
        if amount and parallelism is None:
            return None
        total += amount * (parallelism or 0)
    return total


def _busy(what: str, holders: Sequence[MachineClaim]) -> str:
    names = " and ".join(map(str, holders))
    return (
        f"this machine's {what}, in use by {names}. "
        "One command runs several studies side by side (`tune run a.yaml b.yaml`), "
        "and so do several where each study says its `parallelism`"
    )


def _folder() -> Path:
    """Return the folder of this machine's claims. The home may be shared by machines, or read-only.

    Raises:
        ExecutorError: no folder can be written.
    """
    roots = [home_directory(), Path(tempfile.gettempdir(), f"tunesvc-{os.getuid()}")]
    for root in roots:
        folder = root / "machine" / (platform.node() or "localhost")
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise ExecutorError(
        f"neither {roots[0]} nor {roots[1]} can be written: set TUNE_HOME to a folder that can",
    )


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that this process may use.

    Those of other vendors share one name.
    """
    pretended = os.environ.get("TUNE_LOCAL_GPUS", "")
    if pretended.isdecimal():
        return tuple(str(number) for number in range(int(pretended)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return tuple(name for name in names if name not in ("", "-1"))
    count = len(list(_NVIDIA.iterdir())) if _NVIDIA.is_dir() else 0
    return tuple(str(number) for number in range(count)) or ("all",)
