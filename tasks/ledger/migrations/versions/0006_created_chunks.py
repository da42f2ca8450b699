"""When chunks were added to a run that was there, from which the time to their answers counts"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("chunk", sa.Column("created", sa.Float()))


def downgrade() -> None:
    op.drop_column("chunk", "created")
