# Table 2 of the paper: the manager.
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opencluster import Manager, WorkPiece


class WordCountManager(Manager):

    def schedule(self, task):
        workers = self.getAvailableWorkers("WordCount")
        pieces = self.split(task.getObj("filepath"), len(workers))
        # perform() waits for its result, so each worker gets a thread
        with ThreadPoolExecutor(len(workers)) as threads:
            results = threads.map(lambda w, piece: w.perform(piece), workers, pieces)
        counts = {}
        for result in results:
            for word, count in result.getObj("words").items():
                counts[word] = counts.get(word, 0) + count
        answer = WorkPiece(True)
        answer.setObj("words", counts)
        return answer

    def split(self, filepath, parts):
        pieces = []
        start = 0
        with filepath.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for part in range(1, parts + 1):
                file.seek(size * part // parts)
                file.readline()  # on to the end of the line
                piece = WorkPiece(True)
                piece.setObj("filepath", filepath)
                piece.setObj("start", start)
                piece.setObj("end", file.tell())
                pieces.append(piece)
                start = file.tell()
        return pieces


if __name__ == "__main__":
    task = WorkPiece(True)
    task.setObj("filepath", Path(sys.argv[1]).absolute())
    words = WordCountManager().run(task).getObj("words")
    for word in sorted(words, key=lambda word: (-words[word], word))[:10]:
        print(f"{words[word]:8d}  {word}")
