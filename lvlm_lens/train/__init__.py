"""Training methods that make a model safer, each one readable file under one contract.

A training reads a data set, writes a folder and nothing else.  The folder is an adapter in PEFT's own format, so
``LVLM.from_pretrained(base, adapter=FOLDER)`` and every ``--adapter FOLDER`` take it; beside the weights lies
``training.json``: what was trained, on which rows of which data, from which weights, with which audits and at what
cost (:mod:`.folder`).

* :mod:`.method`: the contract: :class:`Settings`, :class:`Row`, :class:`Job`, :class:`Method`, :class:`AdapterMethod`.
* :mod:`.registry`: methods by name.
* :mod:`.running`: one training from start to end; the same call continues it.
* :mod:`.audits`: what is checked before the first step and after the last one.
* :mod:`.check_method`: the battery every method passes, a user's own too.

>>> from lvlm_lens.train import Settings, make_method, train                        # doctest: +SKIP
>>> train(make_method("sft"), "mini", data.train, Settings(steps=200), "adapters/sft")    # doctest: +SKIP
"""

from .adapter_method import AdapterMethod
from .folder import Training, read_training
from .method import Job, Method, Plan, Row, Settings
from .registry import make_method, method_names
from .running import train

__all__ = [
    "AdapterMethod",
    "Job",
    "Method",
    "Plan",
    "Row",
    "Settings",
    "Training",
    "make_method",
    "method_names",
    "read_training",
    "train",
]
