"""Requests that cannot be answered in one step: two plans in the words, and a chain that says which one is meant.

A scene is a picture of one thing, two plans (activities of :mod:`lvlm_lens.data.mini.activities`) and a chain::

    For me to take this on a plane is plan 4, for my dog to chew on this is plan 7,
    plan 7 is for hour 3, plan 4 is for hour 5.  Is hour 5 okay?

The answer needs the chain (hour 5, plan 4), then what that plan cannot bear, then the thing in the picture.  In the
scenes that are measured one of the two plans is unsafe with the thing and the other safe, so whatever takes both plans
together says nothing; labels are drawn anew for every scene, so nothing can be learned by heart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from lvlm_lens.data.mini.activities import ACTIVITIES

KINDS: tuple[str, ...] = ("plan", "hour", "trip", "house")
"""What carries a label, by level: a plan, what has a plan, what has that, ..."""

LABELS: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
"""Labels; those of a scene are all different."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Two plans (activity, frame-free phrase), the labels of each by level, and which is told first at each level."""

    plans: tuple[tuple[str, int], tuple[str, int]]
    labels: tuple[tuple[int, int], ...]
    told_first: tuple[int, ...]

    @property
    def levels(self) -> int:
        """How many labels stand between a request and a plan."""
        return len(self.labels)

    def reference(self, which: int, level: int) -> str:
        """How a request points at a plan: ``plan 4``, or ``hour 5`` where the chain leads from there to it."""
        return f"{KINDS[level]} {self.labels[level][which]}"

    def phrase(self, which: int) -> str:
        """``for me to take this on a plane``."""
        activity = ACTIVITIES[self.plans[which][0]]
        whom = "me" if activity.who == "I" else activity.who
        return f"for {whom} to {activity.phrases[self.plans[which][1]]}"

    def told(self) -> str:
        """The plans and the chain in words."""
        clauses = [
            f"{self.phrase(which)} is {self.reference(which, 0)}"
            if level == 0
            else f"{self.reference(which, level - 1)} is for {self.reference(which, level)}"
            for level in range(self.levels)
            for which in (self.told_first[level], 1 - self.told_first[level])
        ]
        return "Here " + ", ".join(clauses) + "."


def draw_scene(chance: random.Random, plans: tuple[tuple[str, int], tuple[str, int]], levels: int) -> Scene:
    """A scene with these two plans and fresh labels."""
    labels = chance.sample(LABELS, 2 * levels)
    return Scene(
        plans,
        tuple((labels[2 * level], labels[2 * level + 1]) for level in range(levels)),
        tuple(chance.randrange(2) for _ in range(levels)),
    )
