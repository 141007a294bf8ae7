"""Many devices, one run: Ray places the work, the run folder's ledger says what is done.

A job is cut into shards that never depend on how many workers there are.  Workers (one a device, each with the
model loaded once) compute shards and commit them to the run folder themselves; only a few bytes come back.  When
all shards are there, the ordinary command runs, finds everything finished, and puts the result together; so a run
on many devices differs from a run on one in nothing but time.

May import: everything below the commands.  To let one more command use workers: a :class:`~.job.Job` in ``jobs/``.
"""

from .cluster import Cluster, connect
from .job import Job
from .pool import run_job

__all__ = ["Cluster", "Job", "connect", "run_job"]
