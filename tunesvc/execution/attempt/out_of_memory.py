"""Recognizes out-of-memory errors by their text, which differs between vendors and frameworks.

Imports none of them.
"""

from __future__ import annotations

import re
from typing import Literal

OutOfMemory = Literal["gpu_oom", "host_oom"]

_GPU = re.compile(
    r"""
    \b(?:cuda\w*|hip\w*|ROCm|XPU|MPS|NPU|HPU|GPU)\b[^\n]{0,80}?\bout[ _]of[ _]memory
    | \bout[ _]of[ _]memory\b[^\n]{0,80}?\b(?:CUDA|HIP|ROCm|GPU|HBM|VRAM|device)\b
    | (?:CUDA|HIP)_ERROR_OUT_OF_MEMORY | (?:cudaError|hipError)(?:MemoryAllocation|OutOfMemory)
    | (?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT|HIPBLAS|ROCBLAS|MIOPEN)_(?:STATUS_)?(?:ALLOC_FAILED|MEMORY_ERROR)
    | CL_(?:MEM_OBJECT_ALLOCATION_FAILURE|OUT_OF_RESOURCES)
    | OUT_OF_DEVICE_MEMORY  # SYCL, Level Zero, Vulkan
    | RESOURCE_EXHAUSTED:\ [^\n]*(?:out\ of\ memory|allocat|HBM|OOM)  # XLA: JAX and TensorFlow
    | OOM\ when\ allocating\ tensor(?![^\n]*CPU:\d)  # TensorFlow
    | (?:torch(?:\.cuda)?|cupy\.[\w.]+)\.OutOfMemoryError
    | cuMemAlloc\w*\ (?:failed|results\ in)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HOST = re.compile(
    r"""
    \bMemoryError\b | std::bad_alloc
    | DefaultCPUAllocator | can't\ allocate\ memory | Cannot\ allocate\ memory | Unable\ to\ allocate\ [\d.]+\ \w*i?B\b
    | OOM\ when\ allocating\ tensor[^\n]*CPU:\d
    | java\.lang\.OutOfMemoryError | cannot\ allocate\ vector\ of\ size  # R
    """,
    re.VERBOSE | re.IGNORECASE,
)


def out_of_memory(text: str) -> OutOfMemory | None:
    """Return which memory ran out according to an error's text, or None."""
    if _GPU.search(text):
        return "gpu_oom"
    return "host_oom" if _HOST.search(text) else None
