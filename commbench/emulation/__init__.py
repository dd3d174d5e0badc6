"""A cluster's network on one machine: network namespaces joined by bridges, links made slow.

`layout` says which hosts and links there are, `machine` keeps all of it in namespaces that end with
the command, `switches` builds it with `ip` and `tc`, `inside` is the process that does so there and
starts MPI as `launch` tells. `ranks` is what every host runs to time exchanges, `theory` what they
should take, `rows` what is printed. docs/EMULATION.md tells what that is good for.
"""
