"""Streaming readers for CSV, JSON Lines and JSON: one record at a time, any size (Parquet: ``parquet.py``).

Text files are UTF-8 with or without a byte order mark, UTF-16 with one, or, when they are not
valid UTF-8, Windows-1252 (which holds Latin-1's letters): :func:`text_encoding` finds out in one
pass.  A record that cannot be read is yielded as a :class:`Broken` in its place, so that the
caller counts it; a truncated JSON file gives all records before the cut, then one ``Broken``.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import DataError

_CHUNK = 1 << 16
_TOO_DEEP = "not readable as JSON (nested too deeply)"
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Broken:
    """A record that could not be read, and why."""

    reason: str


def text_encoding(path: Path) -> str:
    """The encoding of a text file: ``utf-8``, ``utf-8-sig``, ``utf-16`` or ``cp1252``."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as stream:
        start = stream.read(4)
        for mark, name in _BOMS:
            if start.startswith(mark):
                return name
        try:
            chunk = start
            while chunk:  # never final: a file cut inside a character is still UTF-8
                decoder.decode(chunk)
                chunk = stream.read(_CHUNK)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def open_text(path: Path) -> TextIO:
    """Open for reading in its own encoding; undecodable bytes become U+FFFD, never an exception."""
    if not path.is_file():
        raise DataError(f"no file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"file {path} is empty")
    return path.open(encoding=text_encoding(path), errors="replace", newline="")


def read_csv(path: Path, comments: bool = False) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """Rows of a CSV (or TSV) file with a header, as ``("line 7", {column: text})``.

    Fields may hold line breaks.  A header without a comma that has semicolons or tabs is split at
    those.  With ``comments`` lines before the header that start with ``#`` are passed over.
    """
    with open_text(path) as stream:
        skipped = 0
        position = stream.tell()
        header = stream.readline()
        while comments and header.startswith("#"):
            skipped, position = skipped + 1, stream.tell()
            header = stream.readline()
        stream.seek(position)
        delimiter = "\t" if path.suffix == ".tsv" else ","
        if delimiter not in header:
            delimiter = next((mark for mark in (";", "\t") if mark in header), delimiter)
        reader = csv.reader(stream, delimiter=delimiter)
        try:
            columns = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise DataError(f"file {path}: its header line is not readable as CSV ({error})") from error
        if not any(columns):
            raise DataError(f"file {path} has no header line with column names")
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DataError(f"file {path}: column {twice[0]!r} stands twice in the header {columns}")
        while True:
            place = f"line {reader.line_num + 1 + skipped}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, Broken(f"not readable as CSV ({error})")
                continue
            if not row:
                continue
            if len(row) > len(columns):
                yield place, Broken(f"{len(row)} fields, but the header names {len(columns)}")
                continue
            yield place, dict(zip(columns, [*row, *[None] * (len(columns) - len(row))], strict=True))


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Records of a JSON Lines file, as ``("line 7", value)``."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                yield f"line {number}", Broken(f"not readable as JSON ({error})")
            except RecursionError:
                yield f"line {number}", Broken(_TOO_DEEP)


class _Buffer:
    """A window over a text stream in which the JSON decoder can ask for more."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.at, self.ended = stream, "", 0, False

    def more(self) -> bool:
        chunk = self.stream.read(max(_CHUNK, len(self.text) - self.at))  # doubling keeps long values linear
        self.text, self.at = self.text[self.at :] + chunk, 0
        self.ended = not chunk
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not blank, or '' at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, mark: str) -> None:
        found = self.peek()
        if found != mark:
            raise ValueError(f"{mark!r} expected, " + (f"{found!r} found" if found else "the file ends"))
        self.at += 1

    def value(self) -> Any:
        """Decode one value, reading on while it is incomplete."""
        if not self.peek():
            raise ValueError("the file ends where a value is expected")
        while True:
            try:
                found, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 12
                if not cut or not self.more():  # damage inside the window is final: do not read the rest for it
                    reason = "the file ends inside a record" if cut and self.ended else error.msg
                    raise ValueError(f"{reason} (truncated or damaged JSON)") from error
                continue
            except RecursionError as error:
                raise ValueError(_TOO_DEEP) from error
            if end == len(self.text) and self.more():  # a number may go on in the next chunk
                continue
            self.at = end
            return found


def _items(buffer: _Buffer, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    buffer.take("[")
    number = 0
    while buffer.peek() != "]":
        if number:
            buffer.take(",")
        yield (*place, number), buffer.value()
        number += 1
    buffer.take("]")


def _members(buffer: _Buffer) -> Iterator[tuple[tuple[Any, ...], Any]]:
    buffer.take("{")
    first = True
    while buffer.peek() != "}":
        if not first:
            buffer.take(",")
        first = False
        key = buffer.value()
        if not isinstance(key, str):
            raise ValueError(f"a member's name must be a string, not {key!r}")
        buffer.take(":")
        if buffer.peek() == "[":
            yield from _items(buffer, (key,))
        else:
            yield (key,), buffer.value()
    buffer.take("}")


def read_json(path: Path) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Records of a JSON file, streamed, each with its place.

    A list gives ``((0,), record), ((1,), record) ...``; an object gives ``((key,), value)``, and where a
    value is a list ``((key, 0), item) ...``.  A damaged file ends with one :class:`Broken`.
    """
    with open_text(path) as stream:
        buffer = _Buffer(stream)
        last: tuple[Any, ...] = ()
        try:
            start = buffer.peek()
            if start not in ("[", "{"):
                raise DataError(f"file {path} is not a JSON list or object; it starts with {start!r}")
            for last, found in _items(buffer, ()) if start == "[" else _members(buffer):
                yield last, found
        except ValueError as error:
            yield (f"after {json_place(last)}" if last else "start",), Broken(str(error))


def json_place(place: tuple[Any, ...]) -> str:
    """A place of :func:`read_json` in words: ``record 3``, ``chat record 3``, ``key 12``."""
    if len(place) == 1:
        return f"record {place[0]}" if isinstance(place[0], int) else str(place[0])
    return f"{place[0]} record {place[1]}"


def read_table(path: Path) -> Iterator[tuple[str, Any]]:
    """Records of a table in any of the four forms, by its suffix, each with its place in words."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(path)
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(path)
    if suffix == ".parquet":
        from .parquet import read_parquet

        return read_parquet(path)
    if suffix == ".json":
        return ((json_place(place), found) for place, found in read_json(path))
    raise DataError(f"file {path} has suffix {suffix!r}; tables are {', '.join(TABLE_SUFFIXES)}")
