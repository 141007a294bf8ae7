"""What other packages add: defences, measures, data sets, recipes and training methods, announced by entry points.

A package writes into its ``pyproject.toml``::

    [project.entry-points."lvlm_lens.defenses"]
    my_defense = "my_package.my_file:MyDefense"

and the name works wherever ours do.  A name of ours always means ours.  The groups and what each expects stand in
:data:`GROUPS`; ``CONTRIBUTING.md`` says which check proves an object.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from .errors import UsageError

GROUPS = {
    "lvlm_lens.defenses": "a class derived from lvlm_lens.defenses.Defense",
    "lvlm_lens.measures": "a lvlm_lens.measures.spec.MeasureSpec",
    "lvlm_lens.datasets": "a lvlm_lens.data.cards.DatasetCard",
    "lvlm_lens.recipes": "a lvlm_lens.recipes.recipe.Recipe",
    "lvlm_lens.training_methods": "a class derived from lvlm_lens.train.Method",
}
"""Entry-point group to what its objects are."""


def announced(group: str) -> dict[str, Any]:
    """Objects of a group by name.

    Raises:
        UsageError: one of them cannot be imported; the message names the package.
    """
    assert group in GROUPS, group
    found = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found[point.name] = point.load()
        except Exception as error:  # whatever a stranger's module raises when it is imported
            owner = point.dist.name if point.dist is not None else "unknown"
            raise UsageError(
                f"package {owner!r} announces {point.name!r} ({point.value}) under {group}, and it cannot be imported "
                f"({type(error).__name__}: {error}); mend or uninstall that package"
            ) from error
    return found
