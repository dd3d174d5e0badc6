"""One warm interpreter a node: it imports once, and each rank is a fork of it.

`choice` decides whether, `client` is what the launcher started, `request` is what it hands over,
`server` forks, `preload` is what is in memory by then, `rank` is how a fork ends.
docs/WARM-START.md tells why.

Nothing here imports more than the standard library before the server has forked off.
"""
