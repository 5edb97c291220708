"""Texts of settings as files, environment and options give them.

Owns the syntax of config.ini, the order in which files are read and the place that
each text comes from. Knows no setting: what a text means is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from opencluster.config.values import shown, unquote

SYSTEM_FILE = Path("/etc/opencluster/config.ini")
CONFIG_VARIABLE = "OPENCLUSTER_CONFIG"

MAX_FILE_BYTES = 1024**2
"""Largest file that is read: configurations are small, devices and dumps are not."""

_SECTION = re.compile(r"\[([^\[\]]+)\]\s*(?:[;#].*)?")
_KEY = re.compile(r"([^=:]+)[=:](.*)")
# A value ends at a blank followed by ; or #, unless that stands between quotes; a
# quote inside a word is an apostrophe.
_VALUE = re.compile(r"""(?:(?<!\w)"[^"]*"|(?<!\w)'[^']*'|(?!\s[;#]).)*""", re.DOTALL)
_COMMENT_SIGNS = ("#", ";")


class RawValue(NamedTuple):
    """A text and where it comes from.

    Attributes
    ----------
    text : str
        As written, without comment and surrounding blanks.
    origin : str
        ``path:line``, ``environment variable NAME`` or ``command line``.
    folder : Path
        What relative paths in the text count from.
    """

    text: str
    origin: str
    folder: Path


@dataclass
class RawSection:
    """The texts of one section, and where its header stands."""

    origin: str
    values: dict[str, RawValue] = field(default_factory=dict)


class Problem(NamedTuple):
    """Something wrong in the configuration, with its place."""

    origin: str
    message: str
    section: str = ""
    key: str = ""

    def __str__(self) -> str:
        """Return one line that names the file, the section and the key."""
        place = " ".join(filter(None, [self.section and f"[{self.section}]", self.key]))
        return ": ".join(filter(None, [self.origin, place, self.message]))


RawSections = dict[str, RawSection]


def merge(into: RawSections, layer: Mapping[str, RawSection]) -> None:
    """Lay the texts of one source over those of the sources before it."""
    for name, section in layer.items():
        known = into.setdefault(name, RawSection(section.origin))
        known.values.update(section.values)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean X?"``, or the known names when none is near."""
    import difflib

    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]}?" if near else f", known: {', '.join(known)}"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the message about a key that a section does not have."""
    return f"unknown key {shown(key)}{suggestion(key, known)}"


class Source(NamedTuple):
    """A file to read.

    Attributes
    ----------
    path : Path
        Where it is.
    named_by : str
        Who named it; empty for a file that need not exist.
    """

    path: Path
    named_by: str = ""


def sources(files: Sequence[Path], environ: Mapping[str, str]) -> Iterator[Source]:
    """Yield the files to read, weakest first.

    Parameters
    ----------
    files : sequence of Path
        Those that the command line names.
    environ : mapping
        The environment, which may name one more and the user's folder.
    """
    yield Source(SYSTEM_FILE)
    yield from map(Source, _user_files(environ))
    if environ.get(CONFIG_VARIABLE):
        variable = f"environment variable {CONFIG_VARIABLE}"
        yield Source(Path(environ[CONFIG_VARIABLE]), variable)
    for path in files:
        yield Source(Path(path), "--config")


def _user_files(environ: Mapping[str, str]) -> Iterator[Path]:
    folder = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not folder.is_absolute():  # the XDG convention says to ignore these
        if not environ.get("HOME"):
            return
        folder = Path(environ["HOME"], ".config")
    yield folder / "opencluster" / "config.ini"


def read_file(source: Source, problems: list[Problem]) -> RawSections:
    """Return the texts of one file; note whatever in it cannot be read."""
    try:
        with source.path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if source.named_by or not absent:
            by = f" (named by {source.named_by})" if source.named_by else ""
            reason = f"cannot be read: {error.strerror or error}{by}"
            problems.append(Problem(str(source.path), reason))
        return {}
    if len(data) > MAX_FILE_BYTES:
        reason = f"larger than {MAX_FILE_BYTES} bytes, so no configuration file"
        problems.append(Problem(str(source.path), reason))
        return {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8, so this is no text file"
        problems.append(Problem(str(source.path), reason))
        return {}
    if "\0" in text:
        reason = "holds NUL bytes, so this is no text file"
        problems.append(Problem(str(source.path), reason))
        return {}
    return parse(source.path, text, problems)


def parse(path: Path, text: str, problems: list[Problem]) -> RawSections:
    """Return what the text of a file says; note each line that says nothing."""
    return _FileReader(path, problems).read(text.split("\n"))


class _FileReader:
    """One pass over the lines of a file."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self._path = path
        self._folder = path.absolute().parent
        self._problems = problems
        self._sections: RawSections = {}
        self._section: str | None = None
        self._key = ""
        self._indent = 0
        self._headless = False

    def read(self, lines: Sequence[str]) -> RawSections:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if text and not text.startswith(_COMMENT_SIGNS):
                self._take(text, len(line) - len(line.lstrip()), number)
        return self._sections

    def _take(self, text: str, indent: int, number: int) -> None:
        if self._key and indent > self._indent:
            self._continue(text)
        elif text.startswith("["):
            self._open(text, number)
        elif self._section is None:
            self._complain_headless(number)
        else:
            self._indent = indent
            self._assign(text, number)

    def _open(self, text: str, number: int) -> None:
        self._key = ""
        match = _SECTION.fullmatch(text)
        if match is None:
            self._section = ""  # swallows the keys below it
            self._note(number, f"got {shown(text)}, expected [section]")
            return
        kind, colon, rest = match[1].strip().partition(":")
        self._section = name = kind.strip().lower() + colon + rest.strip()
        if name in self._sections:
            first = self._sections[name].origin
            self._note(number, f"this section was opened before, at {first}")
        self._sections.setdefault(name, RawSection(self._place(number)))

    def _assign(self, text: str, number: int) -> None:
        self._key = ""
        match = _KEY.fullmatch(text)
        if match is None:
            self._note(number, f"got {shown(text)}, expected key = value")
            return
        key = match[1].strip()
        key = key if "." in key else key.lower()
        if not self._section:
            return
        values = self._sections[self._section].values
        if key in values:
            self._note(number, f"set before, at {values[key].origin}", key)
            return
        self._key = key
        value = _value(match[2])
        values[key] = RawValue(value, self._place(number), self._folder)

    def _continue(self, text: str) -> None:
        values = self._sections[self._section or ""].values
        known = values[self._key]
        longer = f"{known.text}\n{_value(text)}".strip()
        values[self._key] = RawValue(longer, known.origin, known.folder)

    def _complain_headless(self, number: int) -> None:
        if not self._headless:  # once is enough for a file without any header
            self._headless = True
            self._note(number, "a key before the first [section] header")

    def _place(self, number: int) -> str:
        return f"{self._path}:{number}"

    def _note(self, number: int, message: str, key: str = "") -> None:
        origin = self._place(number)
        self._problems.append(Problem(origin, message, self._section or "", key))


def _value(text: str) -> str:
    match = _VALUE.match(text)
    return match[0].strip() if match else ""


def written(text: str, is_unquoted: bool = True) -> str:
    """Return a text as a file must have it to be read as that text, on one line.

    Parameters
    ----------
    text : str
        What is to be read.
    is_unquoted : bool
        Whether whoever reads it takes off quotes. Then it comes between quotes where
        it would be changed otherwise.

    Raises
    ------
    ValueError
        When no file can have it.
    """
    candidates = [text, f'"{text}"', f"'{text}'"] if is_unquoted else [text]
    for candidate in candidates:
        is_whole = _value(candidate) == candidate and not {"\n", "\0"} & set(text)
        read = unquote(candidate) if is_unquoted else candidate
        if is_whole and read == text:
            return candidate
    raise ValueError(
        f"got {shown(text)}, which a line of config.ini cannot hold: it has line "
        "ends, both kinds of quotes, or a comment's sign behind a blank"
    )
