"""Resource requests against what a cluster has: pure arithmetic on dicts of Ray's resource names.

Imports no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execute.executor import Capacity
from tunesvc.spec import Resources

Bundle = Mapping[str, float]
_SLACK = 1e-6
"""Sums of tenths are no tenths."""
_BUILT_IN = ("CPU", "GPU", "memory", "object_store_memory")


def bundle_of(asked: Resources) -> dict[str, float]:
    """The request of one worker under Ray's names, without what is 0."""
    amounts = {"CPU": asked.cpu, "GPU": asked.gpu, "memory": float(asked.memory or 0), **asked.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def capacity_of(nodes: Sequence[Bundle]) -> Capacity:
    """What the nodes have together."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.items():
            total[name] = total.get(name, 0) + amount
    custom = {n: a for n, a in total.items() if n not in _BUILT_IN and not n.startswith(("node:", "accelerator_type:"))}
    return Capacity(len(nodes), total.get("CPU", 0), total.get("GPU", 0), int(total.get("memory", 0)), custom)


def slots_on(nodes: Sequence[Bundle], asked: Resources) -> int:
    """How many workers, or gangs of workers, of this request the nodes hold at a time.

    A bundle lies on one node; the bundles of a gang may lie on several.

    Raises:
        UnsatisfiableRequest: not even one.
    """
    bundle = bundle_of(asked)
    fitting = [_bundles_on(node, bundle) for node in nodes]
    slots = sum(fitting) // asked.workers
    if slots == 0:
        raise UnsatisfiableRequest(_refusal(nodes, asked, bundle, sum(fitting)))
    return slots


def _bundles_on(node: Bundle, bundle: Bundle) -> int:
    if not bundle:
        return max(1, int(node.get("CPU", 1)))  # asks for nothing: one per CPU is a sensible number
    return min(_times(name, node.get(name, 0), amount) for name, amount in bundle.items())


def _times(name: str, available: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a fraction shares one device and never spans two
        return int(available + _SLACK) * math.floor(1 / amount + _SLACK)
    return math.floor(available / amount + _SLACK)


def _refusal(nodes: Sequence[Bundle], asked: Resources, bundle: Bundle, fitting: int) -> str:
    has = capacity_of(nodes)
    if asked.workers > 1 and fitting:
        return (
            f"a trial asks for a gang of {asked.workers} × ({_listed(bundle)}), but the cluster holds {fitting} of "
            f"these ({has}): lower `resources.workers`, or add nodes"
        )
    short = [name for name in bundle if all(_times(name, node.get(name, 0), bundle[name]) == 0 for node in nodes)]
    most = ", ".join(f"{_amount(n, max((node.get(n, 0) for node in nodes), default=0))}" for n in short or bundle)
    return (
        f"a trial asks for {_listed(bundle)}, which no node of the cluster can meet: the largest has {most} "
        f"(in all: {has}); lower `resources` in the study, or join a larger cluster with `cluster: HOST:PORT`"
    )


def _listed(bundle: Bundle) -> str:
    return ", ".join(_amount(name, amount) for name, amount in bundle.items())


def _amount(name: str, amount: float) -> str:
    return f"{amount / 1e9:.1f} GB memory" if name == "memory" else f"{amount:g} {name}"
