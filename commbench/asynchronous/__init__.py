"""The asynchronous parameter server: the one exchange that follows no fixed schedule.

`ledger` decides, without MPI, what a server does about each message; `shard` holds the weights and
the optimizer of a server's part of the model; `server` and `worker` move the messages; `replica`
puts them in the place of an exchange in training. docs/ARCHITECTURE.md tells the rules.
"""
