"""A script as a user has it, with workers and a service that the tests start."""

from __future__ import annotations

import os
import sys
import time

from opencluster import Manager, Service, Worker, WorkPiece, remote


class DoubleWorker(Worker):
    """Doubles a number; says so in its log."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    def perform(self, work: WorkPiece) -> WorkPiece:
        print(f"got {work['number']}", flush=True)
        return WorkPiece(number=self.factor * work["number"])


class WarningWorker(Worker):
    """Complains of the number 2, in two lines."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if work["number"] == 2:
            self.log.warning("two is odd\nindeed")
        return WorkPiece(number=work["number"])


class SlowWorker(Worker):
    """Never comes to an end by itself."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        while True:
            self.progress(1, 4)
            time.sleep(0.01)


class BrokenWorker(Worker):
    """Cannot start."""

    def startup(self) -> None:
        raise RuntimeError("the table is missing")


class DeafWorker(Worker):
    """Dies of its first piece."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        print("these are my last words", flush=True)
        os._exit(7)


class GreetingService(Service):
    """Greets."""

    def __init__(self, word: str = "hello") -> None:
        self.word = word

    @remote
    def greet(self, name: str) -> str:
        return f"{self.word} {name}"


class DoubleManager(Manager):
    """Has numbers doubled, and adds them up."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        pieces = [WorkPiece(number=number) for number in range(task["count"])]
        done = self.map(task["type"], pieces)
        return WorkPiece(total=sum(piece["number"] for piece in done))


class GreetingManager(Manager):
    """Asks the service."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        return WorkPiece(text=self.service(task["service"]).greet("sun"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["show", *arguments]:
            print(sys.argv[0], arguments, sys.path[0], __name__, sep="|")
        case ["double", type, count]:
            task = WorkPiece(type=type, count=int(count))
            print(DoubleManager().run(task)["total"])
        case ["greet", service]:
            print(GreetingManager().run(WorkPiece(service=service))["text"])
        case ["fail"]:
            raise ValueError("a mistake of the script")
        case ["exit", code]:
            sys.exit(int(code))
        case ["sleep"]:
            print("asleep", flush=True)
            time.sleep(60)
