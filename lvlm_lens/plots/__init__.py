"""Figures: plain results in, figure out.

One function a figure, in the theme of :mod:`.theme`; nothing here runs a model or reads a data set.  One more figure: a
file, and the ``figures`` of the stage that draws it; its test reads what was drawn from the artists.
"""
