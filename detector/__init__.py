"""Streaming anomaly detection: sensor readings and camera frames in, alert episodes out."""

import os

# A profile is solved with LAPACK, and its bits must not depend on how many threads that uses. The libraries read
# these once, when numpy is imported, so they are set before anything in this package can import it.
for _limit in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_limit] = "1"

__version__ = "0.1.0"
