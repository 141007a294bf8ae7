"""A batch that does not fit into memory is halved wherever a model is run: the error is raised by hand on a CPU."""

import numpy as np
import pytest
import torch

from lvlm_lens import LVLM
from lvlm_lens.data import Sample
from lvlm_lens.defenses.sasa import SASA, extract
from lvlm_lens.errors import NumericalError
from lvlm_lens.models.tiny import tiny_model


@pytest.fixture
def small():
    """A text model that runs out of memory with more than three rows; ``sizes`` are the rows it was asked for."""
    model = LVLM(*tiny_model("llama"))
    real, sizes = model.model.forward, []

    def forward(*args, **kwargs):
        rows = kwargs["input_ids"].shape[0]
        sizes.append(rows)
        if rows > model.most:
            raise torch.OutOfMemoryError("out of memory")
        return real(*args, **kwargs)

    model.model.forward, model.sizes, model.most = forward, sizes, 99
    return model


def test_the_processors_allocator_counts_as_memory(small):
    """On the CPU PyTorch raises a plain RuntimeError: it is made here by asking for more than any machine has."""
    whole = small.generate(SAMPLES, max_new_tokens=3, batch_size=8)
    real = small.model.forward

    def forward(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > 3:
            torch.empty(2**55)
        return real(*args, **kwargs)

    small.model.forward = forward
    assert small.generate(SAMPLES, max_new_tokens=3, batch_size=8) == whole
    small.model.forward = lambda *args, **kwargs: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="size"):
        small.generate(SAMPLES, max_new_tokens=3, batch_size=8)


SAMPLES = [Sample(f"{i}", f"May I open box number {i}?", group=f"g{i}", label_joint="unsafe") for i in range(8)]


def test_answers_are_those_of_whole_batches(small):
    whole = small.generate(SAMPLES, max_new_tokens=3, batch_size=8)
    small.most = 3
    assert small.generate(SAMPLES, max_new_tokens=3, batch_size=8) == whole
    assert {8, 4, 2} <= set(small.sizes)
    small.most = 0
    with pytest.raises(NumericalError, match="out of memory with a single sample"):
        small.generate(SAMPLES, max_new_tokens=3, batch_size=8)


def test_sasa_is_that_of_whole_batches(small):
    cells = [SASA().cell(0, 2), SASA(control="rerun").cell(1, 3)]
    whole = extract(small, SAMPLES, cells, batch_size=8)
    small.most = 3
    parts = extract(small, SAMPLES, cells, batch_size=8, engine=whole.engine)
    for cell in cells:
        np.testing.assert_allclose(parts.cells[cell], whole.cells[cell], atol=1e-4)
        assert parts.tokens[cell] == whole.tokens[cell]
