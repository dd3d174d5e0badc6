"""commbench: parameter server or all-reduce, measured on real models over real MPI ranks."""

__version__ = "0.1.0"
