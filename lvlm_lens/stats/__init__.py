"""Statistics that every room uses; nothing here knows of models.

Resampling over groups, AUROC, the logistic solver, curves with interval and null, onsets, tests that know about groups,
step-down max-T, equivalence.  Every interval and p-value of a result comes from here.
"""
