"""The wide battery: well-known models at their true widths and vocabularies, with few blocks and random weights.

Tiny models show that a family is read rightly; what only size brings out (indices past 2^24, logits of GiB, sums of
thousands of terms in bfloat16, towers of hundreds of patches) shows here.  ``lvlm-lens models --check --wide``.
"""

from .battery import DTYPES, run_battery
from .shapes import SHAPES

__all__ = ["DTYPES", "SHAPES", "run_battery"]
