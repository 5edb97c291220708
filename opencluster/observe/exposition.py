"""Metrics of a daemon, where Prometheus fetches them.

An HTTP server in a thread of its own answers ``/metrics``. What it tells was asked of
the daemon's own loop, so that a loop that hangs is not shown as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from opencluster.core.metrics import PREFIX, Metric
from opencluster.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE_S = 5.0
"""How long a daemon may take to say how it is doing."""
Ask = Callable[[], Iterable[Metric]]
_MISSING = (
    "metrics need the package prometheus-client: pip install 'opencluster[metrics]'"
)


def asked_of(post: Callable[[Callable[[], None]], None], look: Ask) -> Ask:
    """Return a function that has the loop of a daemon look, and waits for it.

    Parameters
    ----------
    post : callable
        Has a callback run in the loop.
    look : callable
        Is run there.
    """

    def ask() -> Iterable[Metric]:
        seen: Future[Iterable[Metric]] = Future()

        def run() -> None:
            try:
                seen.set_result(look())
            except Exception as error:
                seen.set_exception(error)

        post(run)
        return seen.result(PATIENCE_S)

    return ask


def text_of(metrics: Iterable[Metric]) -> bytes:
    """Return metrics as Prometheus reads them, for a server that is there already.

    Raises
    ------
    ConfigError
        When the package prometheus-client is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise ConfigError(_MISSING) from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_collector(lambda: metrics))
    return generate_latest(registry)


class Exposition:
    """Shows metrics at an address until it is closed.

    Parameters
    ----------
    host : str
        The address to listen at.
    port : int
        The port; 0 for a free one.
    ask : callable
        Returns what is to be shown.

    Attributes
    ----------
    port : int
        The port.

    Raises
    ------
    ConfigError
        When the package prometheus-client is missing, or the address is taken.
    """

    def __init__(self, host: str, port: int, ask: Ask) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise ConfigError(_MISSING) from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_collector(ask))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be shown at {host}:{port}: {error.strerror}; choose "
                "another port in [metrics]"
            ) from None
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Show nothing any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _collector(ask: Ask) -> Collector:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Asking(Collector):
        """Asks each time that somebody fetches."""

        def collect(self) -> Iterator[Any]:
            for metric in ask():
                kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
                labels = metric.samples[0][0] if metric.samples else ()
                family = kind(
                    PREFIX + metric.name.removesuffix("_total"),
                    metric.help,
                    labels=[name for name, _ in labels],
                )
                for own, value in metric.samples:
                    family.add_metric([text for _, text in own], value)
                yield family

        def describe(self) -> list[Any]:
            return []

    return Asking()
