"""The page of a finished run: one self-contained HTML file that people can send around.

Here live the reading of a run folder (``folder.py``, which trusts nothing in it), one view a kind of run (``views/``,
from plain results to sections), and the template with its style and script (``page/``, drawn by jinja2 with
autoescape).  This room may import every other; nothing but ``commands/`` imports it.  To add the page of one more kind
of run: one file in ``views/`` and one line in ``views/__init__.py``.
"""

from .writing import render_report, write_report

__all__ = ["render_report", "write_report"]
