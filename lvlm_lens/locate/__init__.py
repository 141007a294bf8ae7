"""Locating: the roles that curves show, their order, how far the measures agree, and how robust they are.

:mod:`.locating` measures the three headline curves and reads the roles off them, :mod:`.asking` asks any measure of
:mod:`lvlm_lens.measures`, :mod:`.consensus` forms the consensus.  Imports ``measures`` and what lies below.  One more
measure is a file there; one more rule for reading a curve is a function of :mod:`.roles`, proved by
``tests/locate/test_roles.py``.
"""
