"""The tests.

What they compute is small: a second thread of arithmetic would only take a core from other
processes.
"""

import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # read when numpy and scipy are loaded, here and in what tests start
