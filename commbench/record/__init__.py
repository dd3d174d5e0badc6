"""The run file: one HDF5 file a run, complete before the run starts, readable after SIGKILL.

`layout` says which tables a run has, `runfile` writes them under a name from `paths`, `reader`
reads them back. The schema is documented in results/README.md.
"""

from commbench.record.layout import (
    Bucket,
    Group,
    Variable,
    staleness_group,
    sweep_groups,
    training_groups,
)
from commbench.record.paths import check_output, default_path
from commbench.record.reader import open_run, summary
from commbench.record.runfile import RunFile

__all__ = [
    "Bucket",
    "Group",
    "RunFile",
    "Variable",
    "check_output",
    "default_path",
    "open_run",
    "staleness_group",
    "summary",
    "sweep_groups",
    "training_groups",
]
