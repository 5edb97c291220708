"""The kinds of messages, by name; what each carries is told in ``docs/protocols.md``.

Control plane, between anyone and a daemon: `REQUEST`, `REPLY`, `DELTA`, `BEAT`,
`PULSE`, `RENEW`, `FORGOTTEN`, `MOVED`; between factories: `FACTORY`. Data plane,
between a manager and a worker or service: the rest, of which those from `FETCH` on are
about values that workers hold, and some of them pass between workers.
"""

REQUEST = "request"
REPLY = "reply"
DELTA = "delta"
BEAT = "beat"
PULSE = "pulse"
FACTORY = "factory"
MOVED = "moved"
RENEW = "renew"
FORGOTTEN = "forgotten"

PIECES = "pieces"
WITHDRAW = "withdraw"
CANCEL = "cancel"
INTERRUPT = "interrupt"
END = "end"
RESULTS = "results"
RETURNED = "returned"
PROGRESS = "progress"
DRAINING = "draining"
GONE = "gone"
ALIVE = "alive"

FETCH = "fetch"
VALUE = "value"
PART = "part"
CHUNK = "chunk"
LOST = "lost"
PUT = "put"
COPY = "copy"
KEPT = "kept"
UNKEPT = "unkept"
REFER = "refer"
REFERENCES = "references"
MISSING = "missing"
RELEASE = "release"
UNSAVED = "unsaved"
