"""What all tests share: property tests draw the same examples each time, and two workers don't fight over two cores."""

import os

from hypothesis import settings

# Tests start many processes: without compiled files each would compile torch anew, which takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in processes that tests start

# Kernels are measured on a user's machine. Tests take our own where there are any, so that they run everywhere.
if "MASKEDMODEL_KERNELS" not in os.environ:
    from maskedmodel.engine.kernels import has_operator

    os.environ["MASKEDMODEL_KERNELS"] = f"product:{'onednn' if has_operator() else 'torch'},attention:plain"

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
