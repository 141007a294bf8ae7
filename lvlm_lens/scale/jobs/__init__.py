"""One file a job: what one shard of it is, how a worker opens it, and where its ledger stands."""
