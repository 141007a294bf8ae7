"""Names that notebooks and measures of other packages import from here; they live in :mod:`lvlm_lens.measures`."""

from ..measures.spec import COSTS, Measured, MeasureSpec, measure
from ..measures.study import Study

__all__ = ["COSTS", "MeasureSpec", "Measured", "Study", "measure"]
