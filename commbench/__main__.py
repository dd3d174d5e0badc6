"""`python -m commbench` is `commbench`."""

from commbench.cli import main

main()
