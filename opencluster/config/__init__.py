"""Typed settings from config.ini files, the environment and the command line.

Owns every setting with its default, unit and range, and the text of the files that
describe them. Opens no socket, starts nothing, and imports no other room than
`opencluster.errors`.
"""

from __future__ import annotations

from opencluster.config.catalogue import CatalogueEntry
from opencluster.config.loading import load
from opencluster.config.render import render_default, render_reference
from opencluster.config.settings import (
    ClusterSettings,
    Config,
    FactorySettings,
    LimitSettings,
    LogSettings,
    ManagerSettings,
    NetworkSettings,
    Row,
    TracingSettings,
    WorkerSettings,
    WorkshopSettings,
)

__all__ = [
    "CatalogueEntry",
    "ClusterSettings",
    "Config",
    "FactorySettings",
    "LimitSettings",
    "LogSettings",
    "ManagerSettings",
    "NetworkSettings",
    "Row",
    "TracingSettings",
    "WorkerSettings",
    "WorkshopSettings",
    "load",
    "render_default",
    "render_reference",
]
