"""Tables of the ledger. Points of time are seconds since 1970 by the database's own clock."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()
big_id = BigInteger().with_variant(Integer, "sqlite")

run = Table(
    "run",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("title", String(200), nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("prompts", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("finished", Float),
    Column("cancelled_at", Float),
    Column("priority", Integer, nullable=False, default=0, server_default="0"),
    Column("deadline", Float),
    Column("idempotency_key", String(128)),
    Column("fingerprint", String(64), nullable=False),
    Column("prompt_set", String(64)),  # digest of its prompts' texts, in their order
    Column("fresh", Boolean, nullable=False, default=False, server_default=false()),  # no stored answers
    Column("batch", String(40)),  # of the OpenAI interface
    Column("growth", String(32)),  # token of who is adding prompts now
    Column("growth_seen", Float),
    UniqueConstraint("owner", "idempotency_key"),
    Index("run_newest", "created"),
    Index("run_open", "finished", "state"),
    Index("run_by_set", "prompt_set"),
    Index("run_by_batch", "batch"),
)

# Counts are kept here, a row a model, in the transaction that writes completions: pages never count rows.
run_model = Table(
    "run_model",
    metadata,
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("cancelled", Integer, nullable=False, default=0),
    Column("scored", Integer, nullable=False, default=0, server_default="0"),  # chunks
    Column("dispatched", Float, nullable=False, default=0),
    Column("entry", JSON),  # of the model in the registry, as it was when the run was made
    Column("identity", String(16)),  # of that entry
    Column("given_up", Text),  # why nothing more of the model is done
    Column("origin", String(16), nullable=False, default="computed", server_default="computed"),
    Column("merged_from", String(32)),  # the run whose column this was
    Column("sampling", JSON(none_as_null=True)),  # of that run
    Index(
        "run_model_given_up",
        "run",
        sqlite_where=text("given_up IS NOT NULL"),
        postgresql_where=text("given_up IS NOT NULL"),
    ),
)

prompt = Table(
    "prompt",
    metadata,
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("category", String(100)),
    Column("reference", Text),
    Column("system", Text),
    Column("history", JSON(none_as_null=True)),
    Column("follows", Integer),
    Column("checks", JSON(none_as_null=True)),
    Column("tags", JSON(none_as_null=True)),
    Column("variables", JSON(none_as_null=True)),
    Column("custom_id", String(512)),
    Column("sampling", JSON(none_as_null=True)),
    Column("created", Float),  # where it was added to a run that was there
    Index(
        "prompt_by_custom_id",
        "run",
        "custom_id",
        sqlite_where=text("custom_id IS NOT NULL"),
        postgresql_where=text("custom_id IS NOT NULL"),
    ),
)

chunk = Table(
    "chunk",
    metadata,
    Column("id", big_id, primary_key=True, autoincrement=True),
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), nullable=False),
    Column("model", String(64), nullable=False),
    Column("first", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_sample", Integer, nullable=False, default=0, server_default="0"),
    Column("samples", Integer, nullable=False, default=1, server_default="1"),
    Column("lane", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("token", String(32)),
    Column("worker", String(64)),
    Column("lease_until", Float),
    Column("queued_at", Float),
    Column("claimed_at", Float),
    Column("not_before", Float, nullable=False, default=0),
    Column("scored", Boolean, nullable=False, default=False),
    Column("created", Float),  # where it was added to a run that was there
    Index("chunk_by_model", "model", "state", "lane", "run", "first"),
    Index("chunk_by_run", "run", "model", "first"),
    Index("chunk_by_state", "state", "scored"),
)

environment = Table(
    "environment",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("facts", JSON, nullable=False),
)

completion = Table(
    "completion",
    metadata,
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("sample", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("error", Text),
    Column("prompt_tokens", Integer),
    Column("output_tokens", Integer),
    Column("characters", Integer, nullable=False),
    Column("created", Float),
    Column("enqueued", Float),
    Column("claimed", Float),
    Column("admitted", Float),
    Column("first_token", Float),
    Column("last_token", Float),
    Column("written", Float, nullable=False),
    Column("batch_size", Integer),
    Column("cold", Boolean, nullable=False, default=False),
    Column("attempt", Integer, nullable=False),
    Column("seed", BigInteger),
    Column("worker", String(64)),
    Column("peak_rss", BigInteger),
    Column("peak_device_memory", BigInteger),
    Column("energy_joules", Float),
    Column("environment", ForeignKey("environment.id")),
    Column("thinking", Text),
    Column("thinking_tokens", Integer),
    Column("answer_started", Float),
    Column("retries", Integer, nullable=False, default=0, server_default="0"),
    Column("origin", String(16), nullable=False, default="computed", server_default="computed"),
    Column("cache_key", String(32)),  # digest of everything that decides the answer
    Index("completion_by_model", "model", "written"),
    Index(
        "completion_by_cache_key",
        "cache_key",
        sqlite_where=text("cache_key IS NOT NULL AND origin = 'computed'"),
        postgresql_where=text("cache_key IS NOT NULL AND origin = 'computed'"),
    ),
)

# Answers that are being computed, so that whoever asks the same meanwhile waits for them.
in_flight = Table(
    "in_flight",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("chunk", ForeignKey("chunk.id", ondelete="CASCADE"), nullable=False),
    Column("token", String(32), nullable=False),
    Index("in_flight_by_chunk", "chunk"),
)

# Sets of prompts that have a name, known by the digest of their texts.
prompt_set = Table(
    "prompt_set",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("prompts", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Index("prompt_set_by_name", "name"),
)

# Files that were handed in; their bytes lie in the data folder.
upload = Table(
    "upload",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256
    Column("owner", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Index("upload_newest", "purpose", "created"),
)

# Batches of the OpenAI interface; their state is that of their runs.
batch = Table(
    "batch",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("upload", String(40), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("window", String(16), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("metadata", JSON),
    Column("problems", JSON),  # of its file, where it was refused
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("cancelling", Float),
    Index("batch_newest", "created"),
)

# Prompts as models saw them. Samples of a prompt share one (sample 0), unless it follows answers that differ.
rendering = Table(
    "rendering",
    metadata,
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("sample", Integer, primary_key=True),
    Column("text", Text),
    Column("tokens", JSON, nullable=False),
)

score = Table(
    "score",
    metadata,
    Column("run", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("sample", Integer, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("value", Float, nullable=False),
)

worker = Table(
    "worker",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(64), nullable=False),
    Column("cores", String(64), nullable=False),
    Column("dtype", String(16), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("active", Integer, nullable=False, default=0),
    Column("speed", Float),
    Column("load_seconds", Float),
    Column("rss", BigInteger),
    Column("error", Text),
    Column("stage", String(32)),
    Column("stage_share", Float),
    Column("identity", String(16)),
    Column("facts", JSON),
    Column("started", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
    Index("worker_by_model", "model", "heartbeat"),
)
