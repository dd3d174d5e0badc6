"""The exchanges: one topology a file, each a pure function from (rank, size) to a schedule.

A topology module has

* ``schedule(rank, size, *, option=default, ...) -> Schedule``, which raises ValueError for a size
  or an option that it does not admit;
* optionally ``closed_form(size, *, option=default, ...) -> ClosedForm``, the textbook cost that
  `commbench verify` sets beside the counted one (None for a size without a formula);
* optionally ``terms(...) -> Terms``, the textbook time on links all alike, likewise;
* optionally ``symmetry(...) -> Grid``, which ranks are alike, so that prices of thousands of ranks
  are found by playing one of each kind.

It imports nothing but `commbench.schedule`, `commbench.compose` and the topologies that it is made
of, and is found through the entry point group ``commbench.topologies``, so another package adds one
in the same way.
"""
