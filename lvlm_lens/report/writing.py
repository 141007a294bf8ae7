"""From a run folder to its page."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from ..errors import RunFolderError
from ..storage.commit import write_atomic
from .folder import ReportFolder
from .parts import Page
from .views import view_of


def render_report(folder: str | Path) -> str:
    """The page of a run folder as HTML.

    Args:
        folder: of a finished sweep, locate, patch, sasa, evaluate, compare, reproduce or selftest run.

    Raises:
        RunFolderError: no finished run is there, or its files are not what they should be.
    """
    return _draw(view_of(ReportFolder(folder)))


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page (``report.html`` in the run folder, or ``out``); returns its path.

    Raises:
        RunFolderError: as :func:`render_report`; or the page cannot be written there.
    """
    page = render_report(folder)
    given = Path(folder).expanduser()
    beside = given.with_suffix(".html") if given.is_file() else given / "report.html"
    target = beside if out is None else Path(out).expanduser()
    if target.is_dir():
        raise RunFolderError(
            f"{str(target)!r} is a folder; give --out the name of a file, e.g. {target / 'report.html'}"
        )
    if not target.parent.is_dir():
        raise RunFolderError(f"folder {str(target.parent)!r} is not there; make it, or give another --out")
    write_atomic(target, page)
    return target


def _draw(page: Page) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lvlm_lens.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sources = files("lvlm_lens.report") / "page"
    return environment.get_template("page.html.jinja").render(
        page=page,
        style=(sources / "page.css").read_text(encoding="utf-8"),
        script=(sources / "page.js").read_text(encoding="utf-8"),
        data=None if page.data is None else _inside_script(json.dumps(page.data, separators=(",", ":"))),
    )


def _inside_script(text: str) -> str:
    """JSON that cannot end its ``<script>`` element, whatever strings it holds."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\u2028", "\\u2028")
