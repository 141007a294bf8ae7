"""What the measures of a run found, with where each stands on models whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..locate.consensus import ConsensusRole
from ..locate.roles import Role
from ..measures.registry import MEASURES
from ..measures.spec import HEADLINES, Measured
from ..stats.curve import Curve


@dataclass(frozen=True)
class Findings:
    """What the stage found.

    Attributes:
        measured: by name, what could be measured; reasons: by name, why not.
        roles: each voting or drawn measure's own reading of its role; standing: ``reached``, ``missed`` or
            ``untested`` on models whose answer is known.
        consensus: by role; robustness: tables, or why there are none.
    """

    measured: Mapping[str, Measured]
    reasons: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    standing: Mapping[str, str] = field(default_factory=dict)
    consensus: Mapping[str, ConsensusRole] = field(default_factory=dict)
    robustness: Mapping[str, Any] = field(default_factory=dict)

    def of_role(self, role: str) -> dict[str, Curve]:
        """Curves of the measures that speak for a role."""
        return {name: found.curve for name, found in self.measured.items() if MEASURES[name].role == role}

    def curves(self) -> dict[str, Curve]:
        """Every curve by its own name, those of the three headline measures left out (the sweep has them)."""
        out = {}
        for name, found in self.measured.items():
            if name not in HEADLINES.values():
                out[name] = found.curve
            out.update(found.others)
        return out

    def to_dict(self) -> dict[str, Any]:
        """``measures``, ``consensus`` and ``robustness`` for ``result.json``; curves stand under their names there."""
        rows: dict[str, Any] = {}
        headline = {measure: curve for curve, measure in HEADLINES.items()}
        for name in (*self.measured, *self.reasons):
            spec = MEASURES[name]
            row: dict[str, Any] = {
                "done": name in self.measured, "role": spec.role, "cost": spec.cost, "votes": spec.votes,
                "what": spec.what, "source": spec.source, "standing": self.standing.get(name, "untested"),
            }  # fmt: skip
            if name in self.measured:
                found = self.measured[name]
                row |= {"curve": headline.get(name, name), "others": list(found.others), "tables": dict(found.tables)}
                row["finding"] = self.roles[name].to_dict() if name in self.roles else None
            else:
                row["reason"] = self.reasons[name]
            rows[name] = row
        consensus = {role: found.to_dict() for role, found in self.consensus.items()}
        return {"measures": rows, "consensus": consensus, "robustness": dict(self.robustness)}
