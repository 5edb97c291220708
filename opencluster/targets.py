"""Find the class that a user names as ``module:Class`` or ``path.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from opencluster.errors import ConfigError


def load_class(target: str) -> type:
    """Import and return a class.

    Parameters
    ----------
    target : str
        ``package.module:Class`` or ``path/to/file.py:Class``. The folder of a file,
        and for a module the working directory, come first on the import path.

    Raises
    ------
    ConfigError
        When the text has another form, or the class is not there. What the import
        itself raises is let through.
    """
    source, colon, name = target.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(
            f"{target!r} names no class; write module:Class or path/to/file.py:Class"
        )
    module = _from_file(Path(source)) if source.endswith(".py") else _by_name(source)
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise ConfigError(
            f"{source} has no class {name!r}; it has: {', '.join(classes) or 'none'}"
        )
    return cls


def target_of(cls: type) -> str:
    """Return the text by which another process finds a class of this one.

    Raises
    ------
    ConfigError
        When the class was made inside a function or typed in interactively.
    """
    if "<locals>" in cls.__qualname__:
        raise ConfigError(
            f"{cls.__qualname__} is defined inside a function, where other processes "
            "cannot find it; define it at the top level of a file"
        )
    module = sys.modules.get(cls.__module__)
    if cls.__module__ != "__main__":
        file = getattr(module, "__file__", None)
        is_package = "." in cls.__module__
        return f"{cls.__module__ if is_package or not file else file}:{cls.__name__}"
    file = getattr(module, "__file__", None)
    if file is None:
        raise ConfigError(
            f"{cls.__name__} is defined in an interactive session, where other "
            "processes cannot find it; put it into a file"
        )
    return f"{Path(file).absolute()}:{cls.__name__}"


def _from_file(path: Path) -> ModuleType:
    path = path.absolute()
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    _first_on_path(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _by_name(name: str) -> ModuleType:
    _first_on_path(Path.cwd())
    return importlib.import_module(name)


def _first_on_path(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
