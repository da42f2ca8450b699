"""Runs that live: growth, samples of chunks, origins, stored answers, named sets of prompts, uploads, batches"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NEW_TABLES = ("in_flight", "prompt_set", "upload", "batch")
INDEXES = {"run_by_set": ("run", ["prompt_set"]), "run_by_batch": ("run", ["batch"])}
# Of rows of which something holds.
PARTIAL_INDEXES = {
    "completion_by_cache_key": ("completion", ["cache_key"], "cache_key IS NOT NULL AND origin = 'computed'"),
    "prompt_by_custom_id": ("prompt", ["run", "custom_id"], "custom_id IS NOT NULL"),
}


def columns() -> dict[str, list[sa.Column[Any]]]:
    """What is new of each table. Added plainly: a batch on SQLite would drop tables, and rows that refer to them."""
    return {
        "run": [
            sa.Column("prompt_set", sa.String(length=64)),
            sa.Column("fresh", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("batch", sa.String(length=40)),
            sa.Column("growth", sa.String(length=32)),
            sa.Column("growth_seen", sa.Float()),
        ],
        "run_model": [
            sa.Column("origin", sa.String(length=16), nullable=False, server_default="computed"),
            sa.Column("merged_from", sa.String(length=32)),
            sa.Column("sampling", sa.JSON(none_as_null=True)),
        ],
        "prompt": [sa.Column("sampling", sa.JSON())],
        "chunk": [
            sa.Column("first_sample", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("samples", sa.Integer(), nullable=False, server_default="1"),
        ],
        "completion": [
            sa.Column("origin", sa.String(length=16), nullable=False, server_default="computed"),
            sa.Column("cache_key", sa.String(length=32)),
        ],
    }


def upgrade() -> None:
    for table, added in columns().items():
        for column in added:
            op.add_column(table, column)
    op.execute("UPDATE chunk SET samples = (SELECT run.samples FROM run WHERE run.id = chunk.run)")
    for name, (table, indexed) in INDEXES.items():
        op.create_index(name, table, indexed)
    for name, (table, indexed, holds) in PARTIAL_INDEXES.items():
        op.create_index(name, table, indexed, sqlite_where=sa.text(holds), postgresql_where=sa.text(holds))
    _create_tables()


def _create_tables() -> None:
    op.create_table(
        "in_flight",
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("chunk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["chunk"], ["chunk.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("in_flight_by_chunk", "in_flight", ["chunk"])
    op.create_table(
        "prompt_set",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("prompts", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("prompt_set_by_name", "prompt_set", ["name"])
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("upload_newest", "upload", ["purpose", "created"])
    op.create_table(
        "batch",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("upload", sa.String(length=40), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("window", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("problems", sa.JSON(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("cancelling", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("batch_newest", "batch", ["created"])


def downgrade() -> None:
    for table in NEW_TABLES:
        op.drop_table(table)
    for name, on in {**INDEXES, **PARTIAL_INDEXES}.items():
        op.drop_index(name, table_name=str(on[0]))
    for table, added in columns().items():
        for column in added:
            op.drop_column(table, column.name)
