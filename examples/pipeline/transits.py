"""Two managers in a row: the results of the first flow into the second as they come.

The first makes light curves of stars without end, the second looks for planets in
them, and stops when it has found as many as were asked for. Neither holds more than a
window of pieces and results at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from opencluster import Manager, Worker, WorkPiece

NOISE = 0.002
PHASES = 40


class ObserveWorker(Worker):
    """Makes the light curve of a star."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return times in days and relative fluxes, each of shape (1000,)."""
        random = np.random.default_rng(work["star"])
        days = np.sort(random.uniform(0, 30, 1000))
        flux = random.normal(1, NOISE, 1000)
        if random.random() < 0.1:
            period_days = random.uniform(1, 5)
            flux[days % period_days < 0.04 * period_days] -= 0.01
        return WorkPiece(work, days=days, flux=flux)


class SearchWorker(Worker):
    """Looks for a planet that dims its star once in each orbit."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the most significant period, and its signal to noise ratio."""
        periods_days = np.geomspace(1, 5, 1000)
        ratios = [dip(work["days"], work["flux"], period) for period in periods_days]
        best = int(np.argmax(ratios))
        return WorkPiece(
            star=work["star"], period_days=periods_days[best], ratio=ratios[best]
        )


class ObserveManager(Manager):
    """Observes one star after the other, for as long as somebody looks at them."""

    def light_curves(self) -> Iterator[WorkPiece]:
        """Yield light curves without end."""
        stars = (WorkPiece(star=star) for star in itertools.count(1))
        return self.map("Observe", stars)


class SearchManager(Manager):
    """Looks for planets in the light curves of another manager."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Return as many planets as the task asks for."""
        planets = []
        for result in self.map("Search", ObserveManager().light_curves()):
            if result["ratio"] > 10:
                planets.append(result)
            if len(planets) == task["planets"]:
                break
        return WorkPiece(planets=planets)


def dip(days: np.ndarray, flux: np.ndarray, period_days: float) -> float:
    """Return how far the faintest phase lies below the mean, in sigmas.

    Parameters
    ----------
    days, flux : ndarray, shape (n,)
        The light curve.
    period_days : float
        The period at which it is folded.
    """
    phase = (days / period_days % 1 * PHASES).astype(int)
    count = np.bincount(phase, minlength=PHASES)
    missing = np.bincount(phase, flux.mean() - flux, minlength=PHASES)
    return float(np.max(missing / np.sqrt(np.maximum(count, 1))) / NOISE)


if __name__ == "__main__":
    result = SearchManager().run(WorkPiece(planets=3))
    for planet in result["planets"]:
        print(f"star {planet['star']}: a planet every {planet['period_days']:.2f} days")
