"""A method that trains an adapter: it says which rows it trains on and which trainer takes them.

Everything else (audits, resuming, provenance, checks after) is done once for all of them in :mod:`.running`.
"""

from __future__ import annotations

from typing import Any

from .adapter_contract import AdapterContract
from .method import Job, Plan
from .planning import plan_adapter
from .running import train_adapter


class AdapterMethod(AdapterContract):
    """A method that trains a LoRA adapter in the blocks of a model; write what :class:`AdapterContract` asks for."""

    def train(self, job: Job) -> dict[str, Any]:
        """See :func:`lvlm_lens.train.running.train_adapter`."""
        return train_adapter(self, job)

    def plan(self, job: Job) -> Plan:
        """See :func:`lvlm_lens.train.planning.plan_adapter`."""
        self.refuse_meaningless(job.settings.control)
        return plan_adapter(self, job)
