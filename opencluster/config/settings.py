"""Every setting with its default, its range and one line of explanation.

Owns the typed sections and `Config`, which joins them. Reads nothing: the texts
come from `opencluster.config.loading`, and the files that users see are made from
what stands here by `opencluster.config.render`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from opencluster.config.catalogue import CatalogueEntry
from opencluster.config.elastic import ElasticSettings, ElasticType
from opencluster.config.section import Settings
from opencluster.config.values import (
    BOOLEAN,
    ENDPOINTS,
    FRACTION,
    HOURS,
    INTEGER,
    PORTS,
    SECONDS,
    SIZE,
    TEXT,
    Kind,
    Setting,
    choice,
)

DEFAULT_ORIGIN = "default"
"""Where a value comes from that no file, variable or option sets."""
MAX_SPIN_US = 1_000_000
"""A process that waits for longer than this without sleeping is always a mistake."""


def _setting(
    kind: Kind,
    default: object,
    explanation: str,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    described = Setting(kind, explanation, minimum, maximum)
    return field(default=default, metadata={"setting": described})


def _integer(
    default: int, explanation: str, minimum: int = 0, maximum: int | None = None
) -> Any:
    return _setting(INTEGER, default, explanation, minimum, maximum)


def _seconds(default: float, explanation: str, minimum: float = 0) -> Any:
    return _setting(SECONDS, default, explanation, minimum)


def _fraction(default: float, explanation: str) -> Any:
    return _setting(FRACTION, default, explanation)


def _size(default: int, explanation: str, minimum: int = 0) -> Any:
    return _setting(SIZE, default, explanation, minimum)


class ClusterSettings(Settings):
    """Which cluster this is and how its members keep in touch."""

    factories: tuple[str, ...] = _setting(
        ENDPOINTS,
        (),
        "Factories as host:port; empty means the one started on this computer.",
    )
    heartbeat_interval_s: float = _seconds(
        1.0, "Seconds between two heartbeats of a member.", 0.01
    )
    lease_s: float = _seconds(
        10.0, "Seconds without a heartbeat after which a member counts as lost.", 0.02
    )
    keys: str = _setting(
        TEXT,
        "",
        "Directory of keys; empty means the folder keys of the cluster's directory, "
        "or no keys if there is none.",
    )
    insecure: bool = _setting(
        BOOLEAN, False, "Allow addresses beyond this computer without encryption keys."
    )


class NetworkSettings(Settings):
    """Sockets, the same for every process."""

    bind: str = _setting(TEXT, "127.0.0.1", 'The address that the host "*" stands for.')
    announce: str = _setting(
        TEXT,
        "",
        "Address that others are told where a process listens at all of them: an "
        "address, an interface such as ib0 or a network such as 10.1.0.0/16; empty "
        "means the one by which this computer reaches the factories.",
    )
    ports: tuple[int, ...] = _setting(
        PORTS,
        (),
        "Ports such as 9200-9399 that a firewall lets through: who listens at a free "
        "one takes it from these; empty means any.",
    )
    max_message_bytes: int = _size(
        4 * 1024**3,
        "Largest message that is accepted; larger ones are refused.",
        64 << 20,
    )
    zmtp_heartbeat_s: float = _seconds(
        2.0, "Seconds between two pings on an idle connection; 0 sends none."
    )
    zmtp_timeout_s: float = _seconds(
        10.0, "Seconds without an answer to a ping after which a connection is cut."
    )
    express_lane: bool = _setting(
        BOOLEAN,
        True,
        "Go past ZeroMQ between processes of one computer, which is faster.",
    )
    spin_us: int = _integer(
        0,
        "Microseconds that managers and workers look for messages before they sleep, "
        "which saves what waking up takes on cores that nobody else needs; given up "
        "where it finds nothing.",
        0,
        MAX_SPIN_US,
    )
    compression: str = _setting(
        choice("auto", "none", "lz4", "zstd"),
        "auto",
        "How large messages go over ZeroMQ; auto compresses where it was measured "
        "that they are there sooner.",
    )


class MemorySettings(Settings):
    """Memory that processes of one computer share, and values that workers keep."""

    arena_bytes: int = _size(
        1024**3,
        "Most shared memory that a process takes for what it sends; 0 takes none.",
    )
    arena_threshold_bytes: int = _size(
        64 * 1024,
        "Size from which an array goes through shared memory and not the socket.",
    )
    kept_bytes: int = _size(
        0,
        "Kept values that lie in a worker's memory, the rest goes to disk; 0 means "
        "half of its share of the computer's.",
    )
    spill_dir: str = _setting(
        TEXT,
        "",
        "Directory for that; empty means the folder spill of the cluster's directory.",
    )


class FactorySettings(Settings):
    """The directory of the cluster."""

    host: str = _setting(
        TEXT, "*", 'Address to listen on; "*" stands for [network] bind.'
    )
    port: int = _integer(0, "TCP port to listen on; 0 takes a free one.", maximum=65535)
    max_entries: int = _integer(
        100_000, "Members that a factory keeps; further ones are refused.", 1
    )
    jobs_kept: int = _integer(200, "Finished jobs whose statistics are kept.")
    request_timeout_s: float = _seconds(
        5.0, "Seconds that a request to a factory waits for its answer.", 0.01
    )
    beat_interval_s: float = _seconds(
        0.2, "Seconds between two beats of the leading factory to the others.", 0.005
    )
    leader_timeout_s: float = _seconds(
        1.0, "Seconds of silence after which a leader is replaced.", 0.02
    )
    quorum: str = _setting(
        choice("courtesy", "majority"),
        "courtesy",
        "Whom a leader needs: nobody but itself, or most of the factories.",
    )


class WorkshopSettings(Settings):
    """The daemon of one computer, which starts and stops its workers."""

    name: str = _setting(
        TEXT, "", "Name of this workshop; empty means the computer's host name."
    )
    stop_grace_s: float = _seconds(
        5.0,
        "Seconds beyond drain_timeout_s, and hand_over_s while it hands over values, "
        "after which a process is killed.",
    )
    restart_delay_s: float = _seconds(
        0.5, "Seconds before the first restart of a process that died; then doubled."
    )
    restart_delay_max_s: float = _seconds(
        60.0, "Most seconds that a restart is put off."
    )
    failing_after: int = _integer(
        3, "Failed starts in a row after which a type is reported as failing.", 1
    )
    output_lines_kept: int = _integer(
        50, "Last lines of a process's output that are shown when it dies."
    )
    log_bytes: int = _size(
        10 * 1000**2, "Size at which a process's log file is rotated.", 1000
    )
    log_files: int = _integer(3, "Log files kept for each process.", 1)
    oom_score_adj: int = _integer(
        500,
        "How much rather than a daemon a worker is killed when memory runs out.",
        maximum=1000,
    )
    poll_interval_s: float = _seconds(
        0.25, "Seconds between two looks at the processes.", 0.01
    )


class WorkerSettings(Settings):
    """Processes that perform pieces, unless their own section says otherwise."""

    drain_timeout_s: float = _seconds(
        10.0, "Seconds that a stopping worker gets to finish its running piece."
    )
    hand_over_s: float = _seconds(
        30.0,
        "Seconds that it gets after that until other workers hold the values that it "
        "keeps and that managers refer to.",
    )
    interrupt_grace_s: float = _seconds(
        2.0, "Seconds from an interrupt's flag to its exception in perform()."
    )
    kill_grace_s: float = _seconds(
        5.0, "Seconds from that exception to SIGTERM, and from SIGTERM to SIGKILL."
    )
    max_pieces: int = _integer(
        0, "Pieces after which a worker is replaced by a fresh one; 0 means never."
    )
    max_memory: int = _size(
        0,
        "Memory of its own, what it shares with others not counted, above which a "
        "worker is replaced; 0 means never.",
    )
    max_queued: int = _integer(
        10_000, "Pieces that may wait in a worker; further ones are refused.", 1
    )
    max_queued_bytes: int = _size(
        1024**3,
        "Size of the pieces that may wait in a worker; one may always wait.",
        1,
    )


class ManagerSettings(Settings):
    """Programs that split tasks and hand out the pieces."""

    worker_wait_s: float = _seconds(
        30.0, "Seconds to wait for a first worker of a type before giving up."
    )
    retries: int = _integer(
        3, "Times that a piece is run again after it was lost with its worker."
    )
    max_kills: int = _integer(
        3, "Workers that a piece may end before it is quarantined.", 1
    )
    timeout_s: float = _seconds(0.0, "Seconds that a piece may run; 0 means no limit.")
    deadline_s: float = _seconds(
        0.1,
        "Seconds that a real-time piece waits before a batch piece that runs is cut "
        "short for it.",
    )
    buffer_bytes: int = _size(
        64 * 1000**2, "Bytes of inputs and results that one map holds.", 1
    )
    window: int = _integer(
        0, "Pieces that one map keeps in flight; 0 means 1000, or what workers need.", 0
    )
    max_credit: int = _integer(
        256, "Pieces that one worker is handed ahead of time.", 1
    )
    max_pending: int = _integer(
        100_000, "Pieces that wait for a worker before submit() blocks.", 1
    )
    timeline_spans: int = _integer(
        100_000,
        "Runs of pieces that the record of a job keeps one by one; 0 keeps no records.",
    )
    timeline_records: int = _integer(
        1000, "Records of jobs that are kept on a computer.", 1
    )
    letters_kept: int = _integer(
        100, "Quarantined pieces that are kept as dead letters; 0 keeps none."
    )
    letters_bytes: int = _size(
        1000**3, "Bytes of these; the oldest are removed for new ones.", 1
    )
    progress: str = _setting(
        choice("auto", "always", "never"),
        "auto",
        "Progress bar on standard error; auto shows it on a terminal only.",
    )


class TaskQueueSettings(Settings):
    """The durable queue of tasks, and the dispatchers that drain it."""

    url: str = _setting(
        TEXT,
        "",
        "Database: postgresql://user@host/name or sqlite:////path; empty means the "
        "file tasks.db of the cluster's directory.",
    )
    managers: int = _integer(4, "Tasks that one dispatcher runs at a time.", 1, 1000)
    lease_s: float = _seconds(
        60.0,
        "Seconds without a word from its dispatcher after which a task is begun "
        "elsewhere.",
        0.5,
    )
    poll_interval_s: float = _seconds(
        1.0, "Seconds between two looks of a dispatcher at the queue.", 0.01
    )
    retries: int = _integer(
        3, "Times that a task is begun again after its dispatcher or manager died."
    )
    retry_delay_s: float = _seconds(
        10.0, "Seconds that a task is put off after its first error; then doubled."
    )
    stop_grace_s: float = _seconds(
        10.0, "Seconds that a manager which is to stop gets before it is killed."
    )
    max_bytes: int = _size(
        64 * 1000**2, "Largest task, and largest result, that is kept.", 1000
    )
    kept_s: float = _seconds(
        30 * 86400.0, "Seconds that ended tasks are kept; 0 keeps them for ever."
    )


class IngestSettings(Settings):
    """Servers that take items over TCP, and have a manager run for each."""

    policy: str = _setting(
        choice("block", "drop-oldest", "sample"),
        "block",
        "What happens when more comes than is processed and the spool is full: the "
        "sender waits, the oldest item goes, or fewer items are kept.",
    )
    managers: int = _integer(2, "Items that are processed at a time.", 1, 1000)
    retries: int = _integer(3, "Times that an item is tried again after an error.")
    retry_delay_s: float = _seconds(
        5.0, "Seconds before an item is tried again; then doubled."
    )
    spool_bytes: int = _size(
        10 * 1000**3, "Most that items may take on disk in all.", 1
    )
    margin_bytes: int = _size(
        16 * 1000**2, "Room on that disk that items leave for the book.", 0
    )
    failed_bytes: int = _size(
        1000**3, "Items that failed, of which the last ones are kept up to this size."
    )
    kept_s: float = _seconds(
        2 * 86400.0, "Seconds for which an item that comes again is known."
    )
    max_item_bytes: int = _size(
        256 * 1000**2, "Largest item; a larger one is refused.", 1
    )
    max_connections: int = _integer(200, "Senders at a time; more are refused.", 1)
    max_connections_per_address: int = _integer(
        50, "Of these, senders at one address.", 1
    )
    rate_bytes: int = _size(
        0, "Bytes a second that are read from one sender; 0 means no limit."
    )
    idle_s: float = _seconds(
        60.0, "Seconds of silence after which a sender is cut off.", 0.1
    )
    slow_s: float = _seconds(
        10.0, "Seconds in which a sender with something unfinished is measured.", 0.1
    )
    slow_bytes: int = _size(
        1000, "Bytes a second below which such a sender is cut off.", 0
    )
    stop_grace_s: float = _seconds(
        10.0, "Seconds that a server which stops waits for answers and managers."
    )


class LimitSettings(Settings):
    """What one client may ask of everybody else."""

    max_nesting: int = _integer(
        100, "Lists and mappings inside each other in a message.", 32, 300
    )
    max_text: int = _integer(
        4096, "Characters of a name, path or endpoint in the registry.", 256
    )
    max_entry_bytes: int = _size(
        256 * 1024,
        "Size of one entry of the registry, its figures, or a report of a job.",
        128 << 10,
    )
    max_entries_per_client: int = _integer(
        10_000, "Members that one workshop or process registers.", 1
    )
    max_subscribers: int = _integer(
        10_000, "Managers and others that follow one factory.", 1
    )
    max_request_bytes: int = _size(
        256 * 1024**2,
        "Largest message that a factory or workshop takes, a copied registry included.",
        1024**2,
    )
    max_queued_messages: int = _integer(
        10_000,
        "Messages of a factory or workshop that wait for a peer which does not read.",
        100,
    )
    max_types: int = _integer(
        1000, "Types of workers and services in the catalogue of one workshop.", 1
    )


class MetricsSettings(Settings):
    """Numbers for Prometheus, at /metrics of each daemon."""

    host: str = _setting(TEXT, "127.0.0.1", "Address to show metrics at.")
    factory_port: int = _integer(0, "Port of a factory; 0 shows none.", 0, 65535)
    workshop_port: int = _integer(0, "Port of a workshop; 0 shows none.", 0, 65535)
    dispatcher_port: int = _integer(0, "Port of a dispatcher; 0 shows none.", 0, 65535)
    ingest_port: int = _integer(0, "Port of an ingest; 0 shows none.", 0, 65535)


class WebSettings(Settings):
    """The pages: where they are served, and to whom."""

    bind: str = _setting(TEXT, "127.0.0.1:8080", "Address and port of the pages.")
    hosts: str = _setting(
        TEXT,
        "",
        "Names, with commas, by which browsers may ask besides localhost and the "
        "address of bind.",
    )
    tls_certificate: str = _setting(
        TEXT, "", "File of the server's certificate, with those in between, in PEM."
    )
    tls_key: str = _setting(TEXT, "", "File of the key of the certificate, in PEM.")
    behind_proxy: bool = _setting(
        BOOLEAN,
        False,
        "A proxy in front encrypts, and says by X-Forwarded-For, -Proto and -Host who "
        "asks for what.",
    )
    guests: bool = _setting(
        BOOLEAN, False, "Whoever reaches the pages may look, without an account."
    )
    session_hours: float = _setting(
        HOURS, 12.0, "Hours after which somebody logs in again.", 0.1, 8760
    )
    history: bool = _setting(
        BOOLEAN,
        True,
        "Keep what happens, for plots and events, in history.db in the cluster's "
        "directory while the pages are served.",
    )


class TracingSettings(Settings):
    """Traces of pieces for OpenTelemetry."""

    endpoint: str = _setting(
        TEXT,
        "",
        "Where traces go: the address of an OTLP collector, such as "
        "http://collector:4318/v1/traces, or file:/path; empty for nowhere.",
    )
    sample_ratio: float = _fraction(1.0, "The part of all jobs that is traced.")


class DaskSettings(Settings):
    """The engine on a Dask cluster."""

    address: str = _setting(
        TEXT,
        "",
        "Address of the Dask scheduler, such as tcp://node1:8786; empty means what "
        "Dask's own settings say.",
    )
    scheduler_file: str = _setting(
        TEXT, "", "File in which that scheduler wrote its address, instead of one."
    )
    resources: bool = _setting(
        BOOLEAN,
        True,
        "A Dask worker performs the types that it offers as resources; no means that "
        "each of its threads performs every type.",
    )
    direct: str = _setting(
        choice("auto", "yes", "no"),
        "auto",
        "Whether values go straight to Dask workers and not through the scheduler; "
        "auto tries whether one can be reached.",
    )
    connect_timeout_s: float = _seconds(
        10.0, "Seconds that the scheduler has to answer at first.", 0.1
    )


class LogSettings(Settings):
    """What the processes say about themselves."""

    level: str = _setting(
        choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "INFO",
        "Least important messages that are logged.",
    )


class Row(NamedTuple):
    """One setting as `config show` prints it.

    Attributes
    ----------
    section, key : str
        Its name.
    text : str
        Its value, written as in a file.
    origin : str
        ``file:line``, the environment variable, the command line or ``default``.
    """

    section: str
    key: str
    text: str
    origin: str


def _section(kind: type, explanation: str) -> Any:
    return field(default_factory=kind, metadata={"explanation": explanation})


@dataclass(frozen=True)
class Config:
    """All settings of one process.

    Built without arguments it holds the defaults; `opencluster.config.load` adds
    what the files, the environment and the command line say.

    Attributes
    ----------
    catalogue : tuple of CatalogueEntry
        What may run on this computer, in the order of the sections.
    elastic_types : tuple of ElasticType
        The types whose workers come and go by themselves.
    origins : mapping
        Where each value comes from that is not a default, by section and key.
    """

    cluster: ClusterSettings = _section(
        ClusterSettings, "Which cluster this is and how its members keep in touch."
    )
    network: NetworkSettings = _section(
        NetworkSettings, "Sockets, the same for every process."
    )
    memory: MemorySettings = _section(
        MemorySettings,
        "Memory that processes of one computer share, and values that workers keep.",
    )
    factory: FactorySettings = _section(
        FactorySettings, "The directory of the cluster."
    )
    workshop: WorkshopSettings = _section(
        WorkshopSettings, "The daemon of one computer, which runs its workers."
    )
    worker: WorkerSettings = _section(
        WorkerSettings, "Every worker; a [worker:NAME] section may say otherwise."
    )
    manager: ManagerSettings = _section(
        ManagerSettings, "Programs that split tasks and hand out the pieces."
    )
    taskqueue: TaskQueueSettings = _section(
        TaskQueueSettings,
        "The durable queue of tasks, and the dispatchers that drain it.",
    )
    ingest: IngestSettings = _section(
        IngestSettings, "Servers that take items over TCP, a manager run for each."
    )
    elastic: ElasticSettings = _section(
        ElasticSettings,
        "Workers that come and go with the work; see also [elastic:TYPE].",
    )
    limits: LimitSettings = _section(
        LimitSettings, "What one client may ask for; what exceeds it is refused."
    )
    metrics: MetricsSettings = _section(
        MetricsSettings, "Numbers for Prometheus, at /metrics of each daemon."
    )
    web: WebSettings = _section(
        WebSettings, "The pages of `opencluster web`: where, and to whom."
    )
    tracing: TracingSettings = _section(
        TracingSettings, "Traces of pieces through the cluster, for OpenTelemetry."
    )
    dask: DaskSettings = _section(
        DaskSettings, "The engine on a Dask cluster that is there already."
    )
    log: LogSettings = _section(LogSettings, "What the processes say about themselves.")
    catalogue: tuple[CatalogueEntry, ...] = ()
    elastic_types: tuple[ElasticType, ...] = ()
    origins: Mapping[tuple[str, str], str] = field(
        default_factory=dict, repr=False, compare=False
    )

    def origin(self, section: str, key: str) -> str:
        """Return where a value comes from.

        That is ``path:line``, ``environment variable NAME``, ``command line``, or
        ``default`` for a key that nothing sets.
        """
        return self.origins.get((section, key), DEFAULT_ORIGIN)

    def rows(self) -> Iterator[Row]:
        """Yield every setting, then what each section of a type sets."""
        for section in SECTIONS:
            values = getattr(self, section)
            for key, setting in values.settings.items():
                text = setting.kind.render(getattr(values, key))
                yield Row(section, key, text, self.origin(section, key))
        types: list[CatalogueEntry | ElasticType] = [*self.catalogue]
        for entry in types + [*self.elastic_types]:
            for key, text in entry.texts():
                yield Row(entry.section, key, text, self.origin(entry.section, key))


class Section(NamedTuple):
    """A section that always exists.

    Attributes
    ----------
    kind : type
        The class of its values.
    explanation : str
        One line.
    settings : mapping
        Its keys.
    """

    kind: type
    explanation: str
    settings: Mapping[str, Setting]


def _sections() -> dict[str, Section]:
    found = {}
    for item in fields(Config):
        if "explanation" in item.metadata:
            kind: Any = item.default_factory
            text = item.metadata["explanation"]
            found[item.name] = Section(kind, text, kind.settings)
    return found


SECTIONS: Mapping[str, Section] = _sections()
"""The sections that always exist, by name and in the order of the file."""
