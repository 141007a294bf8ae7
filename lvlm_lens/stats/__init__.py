"""Statistics that every room uses; nothing here imports another room.

Resampling over groups, tests that know about groups, step-down max-T, equivalence, paired AUROC.  Every interval and
p-value of a result comes from here or from ``locate/statistics.py``.
"""
