"""The same harmful requests in words alone and with a picture: is the picture what gets them through?"""

from __future__ import annotations

from ..data.groups import groups_of
from ..errors import DataError
from ..evaluate.rates import rate
from ..evaluate.refusal import refusal_rule
from .context import Context, Material
from .recipe import Outcome, paired_effect, rate_row


def picture_against_words(context: Context, material: Material, picture: str) -> Outcome:
    """Attack success of each form, and the paired difference; ``picture`` names the form with the picture.

    Raises:
        DataError: no harmful request that has both forms.
    """
    both = [s for s in material.data if s.harmful == 1 and s.images and s.text_only is not None]
    if not both:
        raise DataError(f"{material.name} holds no harmful request with a picture and the same request in words")
    shown = context.some(both)
    said = [sample.without_images() for sample in shown]
    kept, answers, notes = context.ask({picture: (context.model, shown), "words": (context.model, said)})
    asked = [shown[i] for i in kept]
    rule = refusal_rule("lens")
    success = {name: [not rule(text) for text in given] for name, given in answers.items()}
    groups = groups_of(asked)
    rows = [rate_row(f"attack success, {name}", rate(values, groups=groups)) for name, values in success.items()]
    effect = paired_effect(
        f"attack success, {picture} minus words", success[picture], success["words"], groups, seed=context.seed
    )
    return Outcome(rows, [effect], notes=[*notes, "refusals are told by words (rule lens)"])
