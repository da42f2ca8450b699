"""Conversations, entries of models stored with runs, thinking, rendered prompts, what a worker does while it loads"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def columns() -> dict[str, list[sa.Column[Any]]]:
    """What is new of each table. Added plainly: a batch on SQLite would drop tables, and rows that refer to them."""
    return {
        "prompt": [
            sa.Column("history", sa.JSON()),
            sa.Column("follows", sa.Integer()),
            sa.Column("checks", sa.JSON()),
            sa.Column("tags", sa.JSON()),
            sa.Column("variables", sa.JSON()),
            sa.Column("custom_id", sa.String(length=512)),
            sa.Column("created", sa.Float()),
        ],
        "run_model": [
            sa.Column("entry", sa.JSON()),
            sa.Column("identity", sa.String(length=16)),
            sa.Column("given_up", sa.Text()),
        ],
        "completion": [
            sa.Column("thinking", sa.Text()),
            sa.Column("thinking_tokens", sa.Integer()),
            sa.Column("answer_started", sa.Float()),
            sa.Column("retries", sa.Integer(), nullable=False, server_default="0"),
        ],
        "worker": [
            sa.Column("stage", sa.String(length=32)),
            sa.Column("stage_share", sa.Float()),
            sa.Column("identity", sa.String(length=16)),
            sa.Column("facts", sa.JSON()),
        ],
    }


def upgrade() -> None:
    for table, added in columns().items():
        for column in added:
            op.add_column(table, column)
    op.drop_column("prompt", "metadata")
    given_up = sa.text("given_up IS NOT NULL")
    op.create_index("run_model_given_up", "run_model", ["run"], sqlite_where=given_up, postgresql_where=given_up)
    op.create_table(
        "rendering",
        sa.Column("run", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("tokens", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "model", "idx", "sample"),
    )


def downgrade() -> None:
    op.drop_table("rendering")
    op.drop_index("run_model_given_up", table_name="run_model")
    op.add_column("prompt", sa.Column("metadata", sa.JSON(), nullable=True))
    for table, added in columns().items():
        for column in added:
            op.drop_column(table, column.name)
