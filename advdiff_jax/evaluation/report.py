"""`report.html`: one self-contained page. Sections in, file out; the images are embedded."""

import base64
import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jinja2
import markupsafe


class Image(NamedTuple):
    """An embedded PNG; the images of a section that are not wide share a row."""

    caption: str
    base64: str
    wide: bool = False


class Section(NamedTuple):
    """A heading above its parts, in this order: text, a table (first row: heads), images, preformatted text."""

    heading: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    images: Sequence[Image] = ()
    pre: str = ""


_NUMBER = re.compile(r"[-+]?([\d,]+\.?\d*(e[-+]?\d+)?|nan|inf)( %)?", re.IGNORECASE)


def image(path: pathlib.Path, caption: str, wide: bool = False) -> Image:
    """Reads a PNG for embedding."""
    return Image(caption, base64.b64encode(path.read_bytes()).decode(), wide)


def number(value: float) -> str:
    """Formats a number with four significant digits; from ten million with an exponent."""
    text = f"{value:.4g}"
    return f"{float(text):,.0f}" if 1e4 <= abs(value) < 1e7 else text


def numbers_table(
    numbers: dict[str, float], meaning: Callable[[str], str], paper: dict[str, float] | None = None
) -> list[tuple[str, ...]]:
    """Returns the rows of a table of named numbers, heads first; `meaning` explains a name.

    Numbers that the paper has stand in a column of their own; without any there is no such column.
    """
    paper = {name: number(value) for name, value in (paper or {}).items()}
    rows = [(name, number(value), *([paper.get(name, "")] if paper else []), meaning(name)) for name, value in numbers.items()]
    return [("name", "value", *(["the paper's"] if paper else []), "meaning"), *rows]


def links(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> list[tuple[str, ...]]:
    """Returns a table of links to the files that exist, relative to the page's folder, heads first; [] without any."""
    link = markupsafe.Markup('<a href="{}">{}</a>')
    rows = []
    for file in files:
        if file.exists():
            name = os.path.relpath(file, folder)
            size = "" if file.is_dir() else f"{file.stat().st_size / 1000:,.0f} kB"
            rows.append((link.format(urllib.parse.quote(pathlib.Path(name).as_posix()), name), size))
    return [("file", "size"), *rows] if rows else []


def are_words(table: Sequence[Sequence[str]]) -> list[bool]:
    """Returns, for each column of a table with heads, whether it holds words, which a page aligns left; the first does.

    An empty cell is neither; "mean ± standard deviation" is a number, bold or not.
    """
    columns = list(zip(*table[1:], strict=True)) or [()] * len(table[0])
    return [i == 0 or not all(map(_is_number, column)) for i, column in enumerate(columns)]


def _is_number(cell):
    text = cell.striptags() if isinstance(cell, markupsafe.Markup) else cell
    return all(_NUMBER.fullmatch(part) for part in text.split(" ± ")) if text else True


def write_report(
    path: pathlib.Path, title: str, summary: str, sections: Sequence[Section], facts: Sequence[tuple[str, str]] = ()
) -> None:
    """Renders the page to `path`; `facts`, (term, words), stand below the summary."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("advdiff_jax.evaluation"), autoescape=True, trim_blocks=True)
    template = environment.get_template("report.html.j2")
    page = template.render(title=title, summary=summary, facts=facts, sections=sections, are_words=are_words)
    path.write_text(page, encoding="utf-8")
