# Table 1 of the paper: the worker.
import sys

from opencluster import Worker, WorkPiece


class WordCountWorker(Worker):

    def perform(self, work):
        filepath = work.getObj("filepath")
        start = work.getObj("start")
        end = work.getObj("end")
        counts = {}
        with filepath.open("rb") as file:
            file.seek(start)
            text = file.read(end - start).decode(errors="replace")
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
        result = WorkPiece(True)
        result.setObj("words", counts)
        return result


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9280
    WordCountWorker().ready("WordCount", "*", port)
