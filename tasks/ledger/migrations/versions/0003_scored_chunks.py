"""How many chunks of a run's model are scored is kept, so that no page counts them"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_model", sa.Column("scored", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("run_model", "scored")
