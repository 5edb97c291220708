"""The smallest program: names go out to workers, greetings come back."""

from __future__ import annotations

from opencluster import Manager, Worker, WorkPiece

NAMES = ("Factory", "Workshop", "Worker", "Service", "Manager")


class HelloWorker(Worker):
    """Greets whoever a piece names."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the greeting."""
        return WorkPiece(greeting=f"Hello, {work['name']}!")


if __name__ == "__main__":
    pieces = [WorkPiece(name=name) for name in NAMES]
    for result in Manager().map("Hello", pieces):
        print(result["greeting"])
