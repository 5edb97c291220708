"""What an operator can have done to who looks after elastic types."""

from __future__ import annotations

from opencluster.core.elastic_report import acting, types_in
from opencluster.core.job_orders import RESUME
from opencluster.errors import RegistryError
from opencluster.net.control import Control
from opencluster.observe.job_orders import whoami


def resume(control: Control, by: str = "") -> str:
    """Have types launched again that were stopped, as launching them failed.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    by : str
        Who orders it, for the log; by default who runs this program.

    Returns
    -------
    str
        What comes of it, in a sentence.

    Raises
    ------
    RegistryError
        When nobody looks after elastic types.
    """
    row = acting(control.factory("status")["jobs"])
    if row is None:
        raise RegistryError(
            "nobody looks after elastic types: start that with `opencluster elastic "
            "run`, or in a cluster file with `opencluster up`"
        )
    stopped = [str(t["type"]) for t in types_in(row) if t.get("state") == "stopped"]
    asked = {"id": row["id"], "order": RESUME, "value": None, "by": by or whoami()}
    control.factory("order_job", asked)
    if not stopped:
        return "nothing was stopped; launches that wait after a failure go on at once"
    return f"{', '.join(stopped)}: launched again, as there is work for them"
