"""A job as one file for a browser, with all that it needs inside.

It is made without a server, so that a run that nobody watched leaves its figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bokeh.core.json_encoder import serialize_json
from bokeh.embed import json_item
from bokeh.resources import INLINE
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from opencluster import __version__
from opencluster.core.timeline import Timeline
from opencluster_web.jobs.colours import hues_of
from opencluster_web.jobs.plots import histogram_figure, timeline_figure
from opencluster_web.jobs.source import Record, whole
from opencluster_web.jobs.words import took
from opencluster_web.plots import COLOURS, theme
from opencluster_web.words import significant, stamp

TEMPLATES = Path(__file__).parent.parent / "templates"
MOST = 8000
"""Rectangles: a file cannot ask for more when somebody zooms in."""


def report_html(timeline: Timeline) -> str:
    """Return a page that shows a job, and asks nobody for anything.

    Parameters
    ----------
    timeline : Timeline
        The job and its spans.
    """
    record = Record(timeline)
    columns = record.columns
    plots = {
        "timeline": timeline_figure(timeline, columns, "light", most=MOST),
        "histogram": histogram_figure(timeline, columns, "light"),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(took=took, significant=significant, stamp=stamp)
    # a file has no other pages
    environment.globals["url_if"] = lambda endpoint, **values: ""
    types = sorted(timeline.types)
    return environment.get_template("jobs/report.html").render(
        job=whole(timeline.job),
        timeline=timeline,
        figures=record.figures,
        outcomes=record.outcomes,
        legend=list(zip(types, hues_of(types), strict=True)),
        colours=COLOURS["light"],
        plots={
            name: _inside_page(json_item(plot, theme=theme("light")))
            for name, plot in plots.items()
        },
        programs=Markup(_bokeh()),
        version=__version__,
    )


def _bokeh() -> str:
    """Return the program that draws plots; nothing in it ends its element early."""
    return "\n".join(INLINE.js_raw).replace("</script", "<\\/script")


def _inside_page(item: Any) -> Markup:
    text = json.dumps(json.loads(serialize_json(item)))
    return Markup(text.replace("<", "\\u003c"))
