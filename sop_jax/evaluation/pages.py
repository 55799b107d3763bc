"""HTML pages from the templates in this folder: one file each, without outside addresses."""

import pathlib
from typing import Any

import jinja2

_FOLDER = pathlib.Path(__file__).parent


def render_page(template: str, folder: pathlib.Path | None = None, **values: Any) -> str:
    """The page as HTML; a template that names a value which isn't there fails. `folder` holds the template if it isn't one
    of those here."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_FOLDER] if folder is None else [folder, _FOLDER]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(percent=_percent, points=_points, number=_number, seconds=_seconds)
    return environment.get_template(template).render(**values)


def write_page(page: str, path: pathlib.Path) -> None:
    """Writes the page; a reader never sees half of it."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _points(value: float) -> str:
    return f"{100 * value:+.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.2g}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"
