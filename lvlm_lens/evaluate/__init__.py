"""Evaluation: refusal, judges, rates with intervals, utility and cost.

:mod:`.evaluation` asks every system and compares; :mod:`.reaction` tells refusal, deflection and compliance apart;
``scorers/`` holds one published scoring a file.  Imports the rooms below (``locate``, ``models``, ``stats``), not the
defences, which it takes as objects.
"""

from .judges import EndpointJudge, LocalJudge, Verdict, judge_answers
from .rates import (
    Rate,
    ScoreTable,
    bootstrap,
    rate,
    wilson,
)
from .reaction import Reaction, ReactionScorer, judge_reactions
from .refusal import RefusalRule, is_refusal, refusal_rule
from .refusal_check import score_refusal_scorers
from .rubrics import Rubric, load_rubric
from .thinking import split_thinking

__all__ = [
    "EndpointJudge",
    "LocalJudge",
    "Rate",
    "Reaction",
    "ReactionScorer",
    "RefusalRule",
    "Rubric",
    "ScoreTable",
    "Verdict",
    "bootstrap",
    "is_refusal",
    "judge_answers",
    "judge_reactions",
    "load_rubric",
    "rate",
    "refusal_rule",
    "score_refusal_scorers",
    "split_thinking",
    "wilson",
]
