"""What a warm interpreter has in memory: all that a rank would import, and the shipped images."""

from __future__ import annotations

import importlib
import pkgutil

# Modules that a training run imports when it comes to them.
_LATE = (
    *("commbench.cli", "commbench.trainer", "commbench.tune", "commbench.compose"),
    *("commbench.transport.mpi", "commbench.transport.shared_memory"),
    *("commbench.workloads.data.batches", "simplejpeg", "PIL.Image", "PIL.JpegImagePlugin"),
    *("numpy.fft", "numpy.ma", "numpy.random", "h5py._hl.dims"),
    # torch's optimizers import it, and SymPy with it, whether or not anything is compiled.
    "torch._dynamo",
)
_PACKAGES = ("commbench.topologies", "commbench.wire", "commbench.workloads.models")


def preload() -> None:
    """Import it, without starting MPI, a thread or a device."""
    import mpi4py

    # Each rank starts MPI itself, in its own environment.
    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True
    for name in _LATE:
        importlib.import_module(name)
    for package in map(importlib.import_module, _PACKAGES):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    from commbench.transport.compiled import library
    from commbench.workloads.data.fashion import keep_subset

    library()
    keep_subset()
