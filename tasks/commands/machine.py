"""Commands that look at this machine: its ledger, what it lacks."""

import sys

import click

from tasks.commands.group import main
from tasks.host import doctor as checks
from tasks.ledger.migrate import migrate as migrate_ledger
from tasks.settings import Settings


@main.command()
@click.option("--revision", default="head", show_default=True)
def migrate(revision: str) -> None:
    """Bring the ledger's tables up to date."""
    migrate_ledger(Settings.from_environment(), revision)
    click.echo(f"The ledger is at {revision}.")


@main.command()
def doctor() -> None:
    """Check Redis, ledger, models, cores and disk, and say what to do."""
    findings = checks.examine(Settings.from_environment())
    for finding in findings:
        click.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.subject}: {finding.text}")
    sys.exit(0 if all(finding.ok for finding in findings) else 1)
