"""Claims of processes on a machine, which end with their process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.specs import make_spec
from tunesvc.errors import MachineBusy
from tunesvc.execution.driver.machine_claims import Demand, Machine, MachineClaim
from tunesvc.execution.driver.ray_pool import _local
from tunesvc.execution.ray.cluster_connection import LocalResources
from tunesvc.spec import StudySpec

ON_A_GPU = {"cpu": 1, "gpu": 1}
DYING = """
import sys
from pathlib import Path
from tunesvc.execution.driver.machine_claims import Demand, Machine
holding = Machine(cpus=4, gpus=("0",), folder=Path(sys.argv[1])).claim(["dies"], Demand())
print(holding.claim.cpu, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(cpus=4, gpus=("0", "1"), folder=tmp_path)


def study(parallelism: int | None = None, **resources: float) -> StudySpec:
    return make_spec(parallelism=parallelism, resources=resources or {"cpu": 1})


def test_a_command_that_asks_for_all_gets_all_and_the_next_names_it(machine: Machine) -> None:
    demand = Demand.of([study(**ON_A_GPU)])
    holding = machine.claim(["first"], demand)
    assert holding.claim == MachineClaim(("first",), os.getpid(), 4, ("0", "1"))
    with pytest.raises(
        MachineBusy, match=rf"CPUs, in use by study 'first' \(process {os.getpid()}\)"
    ):
        machine.claim(["second"], demand)
    holding.release()
    assert machine.claim(["second"], demand).claim.gpus == ("0", "1")


def test_no_gpu_has_two_owners(machine: Machine) -> None:
    demand = Demand.of([study(1, **ON_A_GPU)])
    owners = [machine.claim([name], demand).claim.gpus for name in ("first", "second")]
    assert owners == [("0",), ("1",)]
    with pytest.raises(MachineBusy, match="GPUs, in use by study 'first' .* and study 'second'"):
        machine.claim(["third"], demand)
    assert machine.claim(["on CPUs"], Demand.of([study(2)])).claim.gpus == ()


def test_studies_that_say_their_parallelism_share_the_machine_and_the_rest_is_for_one_that_takes_all(
    machine: Machine,
) -> None:
    assert machine.claim(["a", "b"], Demand.of([study(1), study(2, cpu=0.5)])).claim.cpu == 2
    assert machine.claim(["c"], Demand.of([study()])).claim.cpu == 2
    assert machine.claim(["d"], Demand.of([study(3, cpu=0)])).claim.cpu == 0


def test_what_the_machine_could_never_give_is_not_waited_for(machine: Machine) -> None:
    machine.claim(["first"], Demand.of([study(**ON_A_GPU)]))
    assert machine.claim(["second"], Demand.of([study(1, cpu=64, gpu=8)])).claim.gpus == ()


def test_a_claim_ends_with_its_process(machine: Machine, tmp_path: Path) -> None:
    line = [sys.executable, "-c", DYING, str(tmp_path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"4\n"
        with pytest.raises(MachineBusy, match=rf"study 'dies' \(process {process.pid}\)"):
            machine.claim(["next"], Demand())
        process.send_signal(signal.SIGKILL)
    assert machine.claim(["next"], Demand()).claim.cpu == 4


@pytest.mark.parametrize(
    ("demand", "claim", "local"),
    [
        (Demand(), MachineClaim((), 1, 4, ("0", "1")), None),
        (Demand(cpu=2, gpu=0), MachineClaim((), 1, 2, ()), None),
        (Demand(), MachineClaim((), 1, 1.5, ("1",)), LocalResources(cpu=1, gpu=1, devices=("1",))),
        (Demand(cpu=3, gpu=0), MachineClaim((), 1, 2, ()), LocalResources(cpu=2)),
        (
            Demand(cpu=0.5, gpu=1, least_cpu=0.5),
            MachineClaim((), 1, 0.5, ("0",)),
            LocalResources(gpu=1, devices=("0",)),
        ),
    ],
)
def test_a_local_ray_has_what_was_claimed(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    demand: Demand,
    claim: MachineClaim,
    local: LocalResources | None,
) -> None:
    monkeypatch.delenv("TUNE_LOCAL_GPUS", raising=False)
    assert _local(machine, demand, claim) == local
