"""Measures: one file each, with its estimator, what it costs, what it is held against, and its row in tables.

An estimator takes arrays (:class:`~.measure.Measure`); a ``SPEC`` (:class:`~.spec.MeasureSpec`) says how it is computed
for a model (:class:`~.study.Study`).  :mod:`.registry` lists them all.  Imports ``causal`` (tools that edit the
forward), ``activations``, ``models``, ``data``, ``stats``.  One more: a file here and its line in :mod:`.registry`, or
an entry point of a package of your own; :func:`~.check_measure.check_measure` proves it.
"""
