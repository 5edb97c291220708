"""The files that users read, made from the settings.

Owns the text of config.ini and of docs/configuration.md; both are written from here,
so that neither can name a setting that does not exist. Writes no file itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opencluster.config.catalogue import (
    ENTRY_SETTINGS,
    ENVIRONMENT,
    CatalogueEntry,
)
from opencluster.config.elastic import ELASTIC_SETTINGS, ElasticType
from opencluster.config.settings import SECTIONS
from opencluster.config.sources import written
from opencluster.config.values import TEXT, Setting

_HEAD = """\
# The configuration of OpenCluster: every setting with its default.
#
# A file needs to hold only what differs. From weak to strong, these are read:
#   /etc/opencluster/config.ini
#   $XDG_CONFIG_HOME/opencluster/config.ini   (~/.config when that is not set)
#   the file named by the environment variable OPENCLUSTER_CONFIG
#   files given with --config
#   environment variables such as OPENCLUSTER_CLUSTER_LEASE_S=20
# "opencluster config show" prints the settings in force and where each comes from.
#
# Sizes take units (64 MB, 2 GiB), lists take commas, and a comment may follow a
# value after a blank.
"""

_EXAMPLES = """\
# What may run on this computer: a section for each type of worker or service, with
# either a class (target) or a command. docs/configuration.md explains every key.
#
#[worker:WordCount]
#target = wordcount.py:WordCountWorker
#count = 4
#memory_bytes = 2 GB
#
#[worker:Imaging]
#target = observatory.imaging:ImagingWorker
#type = ImagingGPU
#count = 1
#gpus = 1
#cpus = 0-3
#directory = ~/imaging
#max_pieces = 1000
#env.OMP_NUM_THREADS = 4
#arg.pixels = 1024
#
#[service:Ephemeris]
#command = python3 -m observatory.ephemeris --table "planets 2020.txt"
#
#[elastic:WordCount]
#minimum = 0
#maximum = 16
#target_s = 30
"""

_REFERENCE_HEAD = """\
# Configuration

OpenCluster runs without any configuration. What differs from the defaults goes into
a file, an environment variable or an option. From weak to strong:

1. the defaults below;
2. `/etc/opencluster/config.ini`;
3. `$XDG_CONFIG_HOME/opencluster/config.ini` (`~/.config` when the variable is not
   set);
4. the file that the environment variable `OPENCLUSTER_CONFIG` names;
5. files given with `--config`, in their order;
6. environment variables `OPENCLUSTER_<SECTION>_<KEY>`, for example
   `OPENCLUSTER_CLUSTER_LEASE_S=20`;
7. other options of the command line.

`opencluster config show` prints the settings in force and where each comes from;
`opencluster config check` names every mistake with its file, section and key.

## Syntax

```ini
[cluster]
lease_s = 10              ; a comment after a blank and ; or #
factories = node1:9100,
    node2:9100            # deeper indented lines belong to the value
```

- Section names and keys are written in lower case; capitals are accepted. Names
  after `env.`, `arg.`, `worker:`, `service:` and `elastic:` keep their case.
- Sizes are bytes, or a number with `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`,
  `MiB`, `GiB`, `TiB` (powers of 1024).
- Truth values are `true`/`false`, `yes`/`no` or `on`/`off`.
- Lists are separated by commas, blanks or line ends.
- A text that holds ` ;` or ` #`, or that begins or ends with a blank, stands between
  quotes.
- A section and a key appear at most once in a file. A later file replaces single
  keys, not whole sections.
"""

_CATALOGUE_HEAD = """\
## [worker:NAME] and [service:NAME]

What may run on a computer: one section for each type of worker or service. Exactly
one of `target` and `command` is given. A relative path in `target` or `directory`
counts from the folder of the file that names it.
"""

_CATALOGUE_EXTRA = """\
| `env.NAME` | | text | Environment variable NAME of its processes. |
| `arg.NAME` | | Python literal, else text | Argument NAME of the class. |
"""

_ELASTIC_HEAD = """\
## [elastic:TYPE]

A type whose workers come and go with the work, while `opencluster elastic run` runs;
see [Elasticity](elastic.md). TYPE stands in the catalogue of a computer.

"""

_TABLE_HEAD = "| key | default | values | meaning |\n| --- | --- | --- | --- |\n"


def render_default() -> str:
    """Return the text of config.ini: every setting, its default and what it means."""
    return "\n".join([_HEAD, *map(_ini_section, SECTIONS), _EXAMPLES])


def is_unquoted(section: str, key: str) -> bool:
    """Return whether a pair of quotes around the value of a key is taken off."""
    if key.startswith(f"{ENVIRONMENT}."):
        return True
    known = SECTIONS[section].settings if section in SECTIONS else ENTRY_SETTINGS
    return key in known and known[key].kind is TEXT


def render_sections(sections: Mapping[str, Mapping[str, str]]) -> str:
    """Return the text of a configuration file that holds these texts.

    Raises
    ------
    ValueError
        When no file can have one of them.
    """
    parts = []
    for name, values in sections.items():
        lines = [
            f"{key} = {written(text, is_unquoted(name, key))}".rstrip()
            for key, text in values.items()
        ]
        parts.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(parts)


def _ini_section(name: str) -> str:
    section = SECTIONS[name]
    defaults = section.kind()
    lines = [f"# {section.explanation}", f"[{name}]"]
    for key, setting in section.settings.items():
        text = setting.kind.render(getattr(defaults, key))
        lines += [f"# {setting.explanation}", f"{key} = {text}".rstrip()]
    return "\n".join(lines) + "\n"


def render_reference() -> str:
    """Return the text of docs/configuration.md: syntax, and a table per section."""
    parts = [_REFERENCE_HEAD]
    for name, section in SECTIONS.items():
        head = f"## [{name}]\n\n{section.explanation}\n\n"
        parts.append(head + _table(section.settings, section.kind()))
    entry = CatalogueEntry(kind="worker", name="NAME")
    table = _table(ENTRY_SETTINGS, entry) + _CATALOGUE_EXTRA
    elastic = _ELASTIC_HEAD + _table(ELASTIC_SETTINGS, ElasticType("TYPE"))
    return "\n".join([*parts, _CATALOGUE_HEAD, table, elastic])


def _table(settings: Mapping[str, Setting], defaults: object) -> str:
    return _TABLE_HEAD + "".join(_table_rows(settings, defaults))


def _table_rows(settings: Mapping[str, Setting], defaults: object) -> Iterator[str]:
    for key, setting in settings.items():
        default = getattr(defaults, key)
        text = "" if default is None else setting.kind.render(default)
        shown = f"`{text}`" if text else ""
        values = ", ".join(filter(None, [setting.kind.name, setting.range_text()]))
        cells = [f"`{key}`", shown, values, setting.explanation]
        yield "| " + " | ".join(cells) + " |\n"
