"""What a training method is: settings, rows, and two ways to take part.

:class:`Method` is the whole contract: a method has a name, a source, says what is approximated in it, and
:meth:`Method.train` turns a :class:`Job` into a folder (:mod:`.folder`).  A method that trains something of its own (a
dual encoder, say) derives from it and calls :func:`~lvlm_lens.train.folder.finish` at its end.

:class:`~.adapter_method.AdapterMethod` is the common case, an adapter on an LVLM or a language model.

As in scikit-learn the constructor only stores; ``get_params`` gives what was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import BaseEstimator

from ..data import Dataset, Sample
from ..errors import UsageError
from ..training_settings import Settings

if TYPE_CHECKING:
    from ..lens import LVLM


@dataclass(frozen=True)
class Row:
    """One row of a training: a request, the reply that is trained toward, and, for preferences, the worse one.

    Attributes:
        sample: the request: words, pictures, labels.
        reply: the assistant's turn; ``""`` for methods that draw replies themselves.
        worse: the reply that is trained away from.
        other: the reply under the opposite verdict, where the data say it: for the control with shuffled labels.
        name: unique among the rows of a training; the sample's id where a sample gives one row.
    """

    sample: Sample
    reply: str
    worse: str | None = None
    other: str | None = None
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What is kept on disk: the words, and which sample they belong to."""
        return {
            "name": self.name or self.sample.id,
            "sample": self.sample.id,
            "text": self.sample.text,
            "images": len(self.sample.images),
            "labels": [self.sample.label_image, self.sample.label_text, self.sample.label_joint],
            "reply": self.reply,
            "worse": self.worse,
            "other": self.other,
        }


Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called with (steps done, steps in all, what the trainer logged: ``loss`` ...)."""


def _silent(done: int, total: int, logged: Mapping[str, float]) -> None:
    del done, total, logged


@dataclass
class Job:
    """One training.

    Attributes:
        model: name of the base, as :meth:`LVLM.from_pretrained` takes it.
        data: the samples to train on (a training split: nothing here looks for one).
        settings: how.
        folder: where everything goes; a folder with checkpoints is continued, a finished one is read.
        loading: further arguments of ``LVLM.from_pretrained`` (device, dtype, revision ...).
        source: an already loaded base in place of loading it by name; it is left as it is.
        progress: see :data:`Progress`.
        say: one line of text before something slow.
        command: the command line, for the record.
    """

    model: str
    data: Dataset
    settings: Settings
    folder: Path
    loading: Mapping[str, Any] = field(default_factory=dict)
    source: LVLM | None = None
    progress: Progress = _silent
    say: Callable[[str], None] = field(default=lambda line: None)
    command: Sequence[str] | None = None

    def load(self) -> LVLM:
        """A fresh base, without any adapter."""
        from ..lens import LVLM
        from .attached import twin_of

        return LVLM.from_pretrained(self.model, **self.loading) if self.source is None else twin_of(self.source)


@dataclass(frozen=True)
class Plan:
    """What a training would take, for ``--dry-run``.

    Attributes:
        rows: of the data (an upper bound where rows are drawn first); steps: of the optimiser.
        tokens: a row, the mean of a few tried.
        trainable, parameters: counts of numbers that learn, and of all.
        flops: forward and backward of all steps; drawing: of replies drawn before or during it.
        peak_bytes: weights, gradients, optimiser and activations of one step; seconds: on this device.
        notes: what was supposed.
    """

    rows: int
    steps: int
    tokens: float
    trainable: int
    parameters: int
    flops: float
    drawing: float
    peak_bytes: float
    seconds: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Method(BaseEstimator):
    """A training method.

    Class attributes:
        name: on the command line, a Python identifier.
        title: as results print it; an approximation says so here.
        source: arXiv number and what of it was read.
        approximation: what differs from the published method or is not known of it; ``""`` where nothing.
        rate: its own learning rate.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    approximation: ClassVar[str] = ""
    rate: ClassVar[float] = 2e-4

    def train(self, job: Job) -> dict[str, Any]:
        """Train into ``job.folder``, or continue there; returns what ``training.json`` holds.

        Raises:
            DataError: rows that cannot be trained on, each with its remedy (:mod:`.audits`).
            ModelError: a model this method cannot train, an adapter that did not arrive.
            RunFolderError: the folder belongs to another training.
        """
        raise NotImplementedError

    def plan(self, job: Job) -> Plan:
        """What :meth:`train` would take."""
        raise NotImplementedError

    def meaningless(self, control: str) -> str:
        """Why a control (:mod:`.controls`) says nothing of this method; ``""`` where it does."""
        del control
        return ""

    def refuse_meaningless(self, control: str) -> None:
        """Raise :class:`UsageError` for a control that says nothing of this method."""
        if reason := self.meaningless(control):
            raise UsageError(f"control {control!r} says nothing of {self.name}: {reason}")

    def defense(self, folder: Path) -> Any:
        """The defence that the trained folder is, for a method of another package that needs its own.

        ``None``: what :func:`lvlm_lens.defenses.registry.trained_defense` knows of the method, in most cases the plain
        model with the adapter on.
        """
        del folder
