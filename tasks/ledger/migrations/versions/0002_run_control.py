"""Run control: priority, deadline and time of cancelling of a run; indexes for the sweep"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE, no batch: SQLite would copy and drop `run`, and the rows that refer to it would go with it.
    op.add_column("run", sa.Column("cancelled_at", sa.Float(), nullable=True))
    op.add_column("run", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("run", sa.Column("deadline", sa.Float(), nullable=True))
    op.create_index("run_open", "run", ["finished", "state"], unique=False)
    op.drop_index("chunk_unscored", table_name="chunk")
    op.create_index("chunk_by_state", "chunk", ["state", "scored"], unique=False)
    op.execute("UPDATE run SET cancelled_at = coalesce(finished, created) WHERE state = 'cancelled'")


def downgrade() -> None:
    op.execute("UPDATE run SET state = 'pending' WHERE state = 'paused'")
    op.execute("DELETE FROM run WHERE state = 'deleted'")
    op.drop_index("chunk_by_state", table_name="chunk")
    op.create_index(
        "chunk_unscored", "chunk", ["id"], sqlite_where=sa.text("NOT scored"), postgresql_where=sa.text("NOT scored")
    )
    op.drop_index("run_open", table_name="run")
    op.drop_column("run", "deadline")
    op.drop_column("run", "priority")
    op.drop_column("run", "cancelled_at")
