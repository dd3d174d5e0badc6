"""Speed as ratios within one run: `make bench` writes the tables of docs/PERFORMANCE.md."""
