"""Resource requests against what a cluster has: pure arithmetic on dicts of Ray's resource names.

Imports no Ray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunesvc.errors import UnsatisfiableRequest
from tunesvc.execution.executor import Capacity, NodeInfo
from tunesvc.spec import Resources

Bundle = Mapping[str, float]
_SLACK = 1e-6
"""Sums of tenths are no tenths."""
_BUILT_IN = ("CPU", "GPU", "memory")


def bundle_of(request: Resources) -> dict[str, float]:
    """The request of one worker under Ray's names, without what is 0."""
    amounts = {"CPU": request.cpu, "GPU": request.gpu, "memory": float(request.memory or 0), **request.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def amounts_of(resources: Bundle) -> dict[str, float]:
    """Without Ray's own markers."""
    return {
        name: amount
        for name, amount in resources.items()
        if name != "object_store_memory" and not name.startswith(("node:", "accelerator_type:"))
    }


def capacity_of(nodes: Sequence[NodeInfo]) -> Capacity:
    """What the nodes have together."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.total.items():
            total[name] = total.get(name, 0) + amount
    cpu, gpu, memory = (total.pop(name, 0) for name in _BUILT_IN)
    return Capacity(len(nodes), cpu, gpu, int(memory), total, tuple(nodes))


def slots_on(nodes: Sequence[NodeInfo], request: Resources) -> int:
    """How many workers, or gangs of workers, of this request the nodes hold at a time.

    A bundle lies on one node; the bundles of a gang may lie on several.

    Raises:
        UnsatisfiableRequest: not even one.
    """
    bundle = bundle_of(request)
    fitting = sum(_bundles_on(node.total, bundle) for node in nodes)
    if fitting < request.workers:
        raise UnsatisfiableRequest(_refusal(nodes, request, bundle, fitting))
    return fitting // request.workers


def why_waits(nodes: Sequence[NodeInfo], request: Resources) -> str:
    """Why an attempt that makes this request has no place yet, as far as the nodes tell."""
    if not nodes:
        return "nobody has told what the cluster has"
    try:
        slots_on(nodes, request)
    except UnsatisfiableRequest as error:
        return str(error)
    bundle = bundle_of(request)
    fitting = sum(_bundles_on(node.free, bundle) for node in nodes)
    if not bundle or fitting >= request.workers:
        return "there is room for it: its worker is starting"
    if request.workers > 1:
        return f"it asks for {request.workers} × ({_listed(bundle)}) at a time; {fitting} of these are free"
    return f"it asks for {_listed(bundle)}; the most that is free on one node is {_most(nodes, bundle)}"


def _most(nodes: Sequence[NodeInfo], bundle: Bundle) -> str:
    """What is free on the node that comes nearest."""
    nearest = max(nodes, key=lambda node: min(node.free.get(name, 0) / amount for name, amount in bundle.items()))
    return _listed({name: nearest.free.get(name, 0) for name in bundle})


def fits(free: Mapping[str, Bundle], request: Resources) -> bool:
    """Whether one more worker, or gang, of this request has room in what is free on nodes, as far as amounts tell."""
    bundle = bundle_of(request)
    return not bundle or sum(times_in(node, bundle) for node in free.values()) >= request.workers


def times_in(free: Bundle, bundle: Bundle) -> int:
    """How often a bundle of something fits into what is free. Of which device a fraction is, nobody knows."""
    return max(0, math.floor(min(free.get(name, 0) / amount for name, amount in bundle.items()) + _SLACK))


def _bundles_on(node: Bundle, bundle: Bundle) -> int:
    if not bundle:
        return max(1, int(node.get("CPU", 1)))  # asks for nothing: one per CPU is a sensible number
    return min(_times(name, node.get(name, 0), amount) for name, amount in bundle.items())


def _times(name: str, available: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a fraction shares one device and never spans two
        return int(available + _SLACK) * math.floor(1 / amount + _SLACK)
    return math.floor(available / amount + _SLACK)


def _refusal(nodes: Sequence[NodeInfo], request: Resources, bundle: Bundle, fitting: int) -> str:
    has = capacity_of(nodes)
    if request.workers > 1 and fitting:
        return (
            f"a trial asks for a gang of {request.workers} × ({_listed(bundle)}), but the cluster holds {fitting} of "
            f"these ({has}): lower `resources.workers`, or add nodes"
        )
    short = [name for name in bundle if all(_times(name, node.total.get(name, 0), bundle[name]) == 0 for node in nodes)]
    most = ", ".join(f"{_amount(n, max((node.total.get(n, 0) for node in nodes), default=0))}" for n in short or bundle)
    return (
        f"a trial asks for {_listed(bundle)}, which no node of the cluster can meet: the largest has {most} "
        f"(in all: {has}); lower `resources` in the study, or join a larger cluster with `cluster: HOST:PORT`"
    )


def _listed(bundle: Bundle) -> str:
    return ", ".join(_amount(name, amount) for name, amount in bundle.items())


def _amount(name: str, amount: float) -> str:
    return f"{amount / 1e9:.1f} GB memory" if name == "memory" else f"{amount:g} {name}"
