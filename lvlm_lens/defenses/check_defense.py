"""One battery of checks for every defence: what holds for all of them, whatever they do.

``check_defense(defense, model, data)`` raises :class:`AssertionError` naming the rule that was broken.  A user's own
defence is checked with it, as the package's are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from sklearn.base import clone

from ..data import Sample
from ..errors import DataError, LensError
from ..lens import LVLM
from .base import NEEDS, Defense, Detector


def _state(model: LVLM) -> tuple[str, int]:
    digest = hashlib.sha256()
    for tensor in model.model.state_dict().values():
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.model.modules())
    return digest.hexdigest(), hooks


def check_defense(
    defense: Defense, model: LVLM, train: Sequence[Sample], test: Sequence[Sample], max_new_tokens: int = 4
) -> None:
    """Run the battery.

    Args:
        defense: an unfitted defence.
        model: a model it can work on.
        train, test: labelled samples of both classes, with captions, references and ``text_only`` where needed.
        max_new_tokens: of the answers.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    kind = type(defense).__name__
    assert defense.name and set(defense.needs) <= set(NEEDS), f"{kind}: name or needs not declared"
    assert isinstance(defense.approximation, str), f"{kind}: approximation is not a text"
    before = {key: repr(value) for key, value in defense.get_params(deep=False).items()}
    assert not [k for k in vars(defense) if k.endswith("_")], f"{kind}: the constructor learns something"
    model.logits(model.encode(test[:1]))  # transformers installs its own hooks in the first forward
    state = _state(model)
    fresh = clone(defense)
    if "training data" in defense.needs:
        try:
            clone(defense).fit(model, [])
        except LensError:
            pass
        else:
            raise AssertionError(f"{kind}: an empty training set was accepted")
        one_class = [s for s in train if s.harmful == 1]
        try:
            clone(defense).fit(model, one_class)
        except DataError as error:
            assert "harm" in str(error), f"{kind}: the message does not say that one class is missing: {error}"
        else:
            raise AssertionError(f"{kind}: a training set of one class was accepted")
    assert fresh.fit(model, train) is fresh, f"{kind}: fit does not return self"
    after = {key: repr(value) for key, value in fresh.get_params(deep=False).items()}
    assert after == before, f"{kind}: fit changed a parameter"
    guarded = fresh.guard(model)
    answers = guarded.generate(test, max_new_tokens=max_new_tokens)
    assert len(answers) == len(test) and all(isinstance(a, str) for a in answers), f"{kind}: not one answer a sample"
    assert guarded.cost.queries == len(test), f"{kind}: queries not counted"
    assert guarded.cost.forwards > 0 and guarded.cost.tokens > 0, f"{kind}: cost not counted"
    again = fresh.guard(model).generate(test, max_new_tokens=max_new_tokens)
    assert again == answers, f"{kind}: the same requests got other answers"
    singly = [fresh.guard(model).generate([s], max_new_tokens=max_new_tokens)[0] for s in test[:2]]
    assert singly == answers[:2], f"{kind}: the batch changes the answers"
    backwards = fresh.guard(model).generate(list(test)[::-1], max_new_tokens=max_new_tokens)
    assert backwards[::-1] == answers, f"{kind}: the order of requests changes the answers"
    assert fresh.guard(model).generate([]) == [], f"{kind}: no request must give no answer"
    twice = clone(defense).fit(model, train).guard(model).generate(test, max_new_tokens=max_new_tokens)
    assert twice == answers, f"{kind}: the same training data gave another defence"
    acts = fresh.capture(model, test)
    assert [s.id for s in acts.samples] == [s.id for s in test], f"{kind}: capture loses or reorders samples"
    if isinstance(fresh, Detector):
        _check_detector(fresh, model, test, max_new_tokens)
    assert _state(model) == state, f"{kind}: the model was changed, or a hook was left behind"


def _check_detector(detector: Detector, model: LVLM, test: Sequence[Sample], max_new_tokens: int) -> None:
    kind = type(detector).__name__
    scores = detector.score_prompt(model, test)
    assert scores.shape == (len(test),) and np.isfinite(scores).all(), f"{kind}: scores are not one finite number each"
    kept = detector.threshold_
    detector.threshold_ = float("inf")
    plain = model.generate(test, max_new_tokens=max_new_tokens)
    guarded = detector.guard(model).generate(test, max_new_tokens=max_new_tokens)
    assert guarded == plain, f"{kind}: safe requests do not get the model's own answer"
    detector.threshold_ = float("-inf")
    refused = detector.guard(model).generate(test, max_new_tokens=max_new_tokens)
    assert len(set(refused)) == 1, f"{kind}: flagged requests do not get the fixed refusal"
    detector.threshold_ = kept
    flags = detector.predict(model, test)
    assert (flags == (scores >= kept)).all(), f"{kind}: predict and score_prompt disagree"
