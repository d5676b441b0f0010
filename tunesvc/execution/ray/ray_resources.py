"""Compares resource requests with a cluster's nodes, by Ray's resource names.

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
"""Tolerance for sums of binary fractions."""
_BUILT_IN = ("CPU", "GPU", "memory")


def bundle_of(request: Resources) -> dict[str, float]:
    """Return the request of one worker under Ray's names, without zeros."""
    amounts = {
        "CPU": request.cpu,
        "GPU": request.gpu,
        "memory": float(request.memory or 0),
        **request.custom,
    }
    return {name: amount for name, amount in amounts.items() if amount > 0}


def amounts_of(resources: Bundle) -> dict[str, float]:
    """Return a node's resources without Ray's internal ones."""
    return {
        name: amount
        for name, amount in resources.items()
        if name != "object_store_memory" and not name.startswith(("node:", "accelerator_type:"))
    }


def capacity_of(nodes: Sequence[NodeInfo]) -> Capacity:
    """Return the total resources of the nodes."""
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.total.items():
            total[name] = total.get(name, 0) + amount
    cpu, gpu, memory = (total.pop(name, 0) for name in _BUILT_IN)
    return Capacity(len(nodes), cpu, gpu, int(memory), total, tuple(nodes))


def slots_on(nodes: Sequence[NodeInfo], request: Resources) -> int:
    """Return how many workers, or gangs of workers, of this request fit on the nodes at a time.

    A bundle lies on one node; the bundles of a gang lie where its strategy allows.

    Raises:
        UnsatisfiableRequest: not even one.
    """
    bundle = bundle_of(request)
    counts = [_bundles_on(node.total, bundle) for node in nodes]
    gangs = gangs_in(counts, request)
    if gangs == 0:
        raise UnsatisfiableRequest(_refusal(nodes, request, bundle, counts))
    return gangs


def gangs_in(counts: Sequence[int], request: Resources) -> int:
    """Return how many gangs fit on nodes that hold `counts` of their bundles."""
    if request.strategy == "STRICT_PACK":
        return sum(count // request.workers for count in counts)
    gangs = sum(counts) // request.workers
    if request.strategy == "STRICT_SPREAD":
        # A node serves each gang once: `gangs` fit if and only if there are so many places.
        while sum(min(count, gangs) for count in counts) < gangs * request.workers:
            gangs -= 1
    return gangs


def why_waits(nodes: Sequence[NodeInfo], request: Resources) -> str:
    """Describe why an attempt with this request is still waiting, judging by the nodes."""
    if not nodes:
        return "the cluster's resources are not known yet"
    try:
        slots_on(nodes, request)
    except UnsatisfiableRequest as error:
        return str(error)
    bundle = bundle_of(request)
    counts = [_bundles_on(node.free, bundle) for node in nodes]
    if not bundle or gangs_in(counts, request):
        return "there is room for it: its worker is starting"
    if request.workers > 1:
        gang = f"{request.workers} × ({_format_bundle(bundle)})"
        return f"it asks for {gang} at a time; {_free_text(counts, request)}"
    most = _most(nodes, bundle)
    return f"it asks for {_format_bundle(bundle)}; the most that is free on one node is {most}"


def _most(nodes: Sequence[NodeInfo], bundle: Bundle) -> str:
    """Describe the free amounts on the node that comes nearest to the bundle."""

    def fit(node: NodeInfo) -> float:
        return min(node.free.get(name, 0) / amount for name, amount in bundle.items())

    nearest = max(nodes, key=fit)
    return _format_bundle({name: nearest.free.get(name, 0) for name in bundle})


def fits(free: Mapping[str, Bundle], request: Resources) -> bool:
    """Return True if one more worker, or gang, fits into the nodes' free amounts."""
    bundle = bundle_of(request)
    if not bundle:
        return True
    return gangs_in([times_in(node, bundle) for node in free.values()], request) > 0


def times_in(free: Bundle, bundle: Bundle) -> int:
    """Return how often a non-empty bundle fits into free amounts.

    Ignores how fractions are split over devices.
    """
    times = min(free.get(name, 0) / amount for name, amount in bundle.items())
    return max(0, math.floor(times + _SLACK))


def _bundles_on(node: Bundle, bundle: Bundle) -> int:
    if not bundle:
        return max(1, int(node.get("CPU", 1)))  # an empty request: assume one per CPU
    return min(_times(name, node.get(name, 0), amount) for name, amount in bundle.items())


def _times(name: str, available: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a fraction shares one device and never spans two
        return int(available + _SLACK) * math.floor(1 / amount + _SLACK)
    return math.floor(available / amount + _SLACK)


def _refusal(
    nodes: Sequence[NodeInfo],
    request: Resources,
    bundle: Bundle,
    counts: Sequence[int],
) -> str:
    has = capacity_of(nodes)
    if request.workers > 1 and any(counts):
        places = {"STRICT_PACK": " on one node", "STRICT_SPREAD": ", each on its own node"}
        return (
            f"a trial asks for a gang of {request.workers} × ({_format_bundle(bundle)})"
            f"{places.get(request.strategy, '')}, but {_held(counts, request)} ({has}): "
            f"lower `resources.workers`, {_REMEDIES.get(request.strategy, 'or add nodes')}"
        )
    short = [name for name in bundle if not _is_on_any(nodes, name, bundle[name])]
    largest = {name: _largest(nodes, name) for name in short or bundle}
    most = _format_bundle(largest)
    return (
        f"a trial asks for {_format_bundle(bundle)}, "
        f"which no node of the cluster can meet: the largest has {most} (in all: {has}); "
        "lower `resources` in the study, or join a larger cluster with `cluster: HOST:PORT`"
    )


_REMEDIES = {
    "STRICT_PACK": "write `strategy: PACK`, or add a larger node",
    "STRICT_SPREAD": "write `strategy: SPREAD`, or add nodes",
}


def _held(counts: Sequence[int], request: Resources) -> str:
    """Describe how many bundles of a gang the cluster holds, as far as its strategy counts them."""
    if request.strategy == "STRICT_PACK":
        return f"the largest node holds {max(counts)} of these"
    if request.strategy == "STRICT_SPREAD":
        return f"the number of nodes with room for one is {sum(count > 0 for count in counts)}"
    return f"the cluster holds {sum(counts)} of these"


def _free_text(counts: Sequence[int], request: Resources) -> str:
    """Describe how many bundles of a gang are free, as far as its strategy counts them."""
    if request.strategy == "STRICT_PACK":
        return f"{max(counts)} of these are free on one node"
    if request.strategy == "STRICT_SPREAD":
        return f"the number of nodes with one free is {sum(count > 0 for count in counts)}"
    return f"{sum(counts)} of these are free"


def _is_on_any(nodes: Sequence[NodeInfo], name: str, amount: float) -> bool:
    return any(_times(name, node.total.get(name, 0), amount) > 0 for node in nodes)


def _largest(nodes: Sequence[NodeInfo], name: str) -> float:
    return max((node.total.get(name, 0) for node in nodes), default=0)


def _format_bundle(bundle: Bundle) -> str:
    return ", ".join(_format_amount(name, amount) for name, amount in bundle.items())


def _format_amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 1e9:.1f} GB memory"
    return f"{amount:g} {name}"
