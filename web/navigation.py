"""Where the pages are found: groups of sections, and the pages that belong to each.

A section is shown once its view is registered, to those who may see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, current_app, request, url_for

from opencluster_web.accounts.guard import may


@dataclass(frozen=True)
class Section:
    """A page that the navigation leads to.

    Attributes
    ----------
    endpoint : str
        Its view.
    name : str
        What it is called.
    icon : str
        Of Bootstrap's.
    details : tuple of str
        Views of single things in it, where those of its blueprint are not meant.
    role : str
        Who may see it.
    """

    endpoint: str
    name: str
    icon: str
    details: tuple[str, ...] = ()
    role: str = "observer"


GROUPS: Mapping[str, Sequence[Section]] = {
    "Cluster": (
        Section("cluster.overview", "Overview", "speedometer2"),
        Section("cluster.computers", "Computers", "pc-display", ("cluster.computer",)),
        Section("cluster.workers", "Workers", "cpu"),
        Section("cluster.services", "Services", "hdd-network"),
        Section("cluster.factories", "Factories", "diagram-3"),
    ),
    "Work": (
        Section("jobs.page", "Jobs", "list-task"),
        Section("tasks.page", "Tasks", "inboxes"),
        Section("letters.page", "Dead letters", "envelope-exclamation"),
    ),
    "Records": (
        Section("cluster.events", "Events", "journal-text"),
        Section("logs.page", "Logs", "terminal"),
        Section("accounts.audit", "Audit", "shield-check", (), "operator"),
    ),
    "MUSER": (
        Section("gallery.latest", "Images", "brightness-high"),
        Section("gallery.curve", "Light curve", "graph-up"),
        Section("gallery.movies", "Movies", "film"),
    ),
    "Account": (
        Section(
            "accounts.account",
            "Your account",
            "person",
            ("accounts.welcome", "accounts.make_token"),
        ),
        Section(
            "accounts.users",
            "Users",
            "people",
            ("accounts.add_user", "accounts.change_user"),
            "administrator",
        ),
    ),
}


@dataclass(frozen=True)
class Navigation:
    """What the navigation shows on a page.

    Attributes
    ----------
    groups : mapping
        Sections by the name of their group, without those that are not shown.
    group : str
        Where this page is, or empty.
    section : Section or None
        To which it belongs.
    """

    groups: Mapping[str, Sequence[Section]]
    group: str = ""
    section: Section | None = None


def register(app: Flask) -> None:
    """Give the templates of an application the `Navigation` of each page."""
    app.add_template_global(navigation)
    app.add_template_global(url_if)


def navigation() -> Navigation:
    """Return what the navigation shows on the page that is made."""
    shown = {name: [s for s in own if _is_shown(s)] for name, own in GROUPS.items()}
    groups = {name: own for name, own in shown.items() if own}
    places = [(name, section) for name, own in groups.items() for section in own]
    for is_here in (_is_page, _is_of_blueprint):
        for name, section in places:
            if is_here(section):
                return Navigation(groups, name, section)
    return Navigation(groups)


def url_if(endpoint: str, **values: Any) -> str:
    """Return the address of a view, or nothing where there is no such view."""
    is_there = endpoint in current_app.view_functions
    return url_for(endpoint, **values) if is_there else ""


def _is_shown(section: Section) -> bool:
    return section.endpoint in current_app.view_functions and may(section.role)


def _is_page(section: Section) -> bool:
    return request.endpoint in (section.endpoint, *section.details)


def _is_of_blueprint(section: Section) -> bool:
    return section.endpoint.partition(".")[0] == request.blueprint
