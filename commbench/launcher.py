"""What the launcher's environment says about this process, before MPI starts."""

import os

_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


def launched_rank() -> int:
    """This process's rank in its job; 0 when it was started without a launcher."""
    for name in _RANK_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0
