"""``export RUN``: a run's results as a file."""

import os
import sys
import tempfile
from pathlib import Path

import click

from tasks.commands.group import main
from tasks.commands.http import Api, Download, run_path
from tasks.commands.options import names, of_run
from tasks.errors import InvalidInput
from tasks.files.write import ExportFormat

STANDARD_OUTPUT = "-"


@main.command()
@of_run
@click.option("--format", "format_", required=True, help="jsonl, csv, parquet and others; a wrong one shows all.")
@click.option("--models", callback=names, help="Names, separated by commas [all].")
@click.option("--out", help="The file to write, - for standard output [as the server calls it].")
def export(run_id: str, url: str, format_: str, models: list[str], out: str | None) -> None:
    """Write the results of RUN to a file."""
    download(Api(url), run_id, format_, models, out)


def format_of(out: Path, given: str | None) -> str:
    """The format of a file: as given, else by the ending of its name. Raises `InvalidInput` without either."""
    found = given or out.suffix.removeprefix(".").lower()
    if not found:
        raise InvalidInput(f"{out} has no ending that names a format; give one with --out-format.", "out")
    if found not in list(ExportFormat):
        raise InvalidInput(f"{found!r} is no format; give one of {', '.join(ExportFormat)} with --out-format.", "out")
    return found


def check_place(out: Path) -> None:
    """Raise `InvalidInput` where no file can be written, before anything is computed for it."""
    if out.is_dir() or not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise InvalidInput(f"{out} cannot be written; give a file in a folder that is there.", "out")


def download(api: Api, run_id: str, format_: str, models: list[str], out: str | None) -> None:
    """Fetch an export. A file appears under its name when it is whole, and one that is there is replaced by then."""
    fetched = api.fetch(run_path(run_id, "export"), format=format_, models=models)
    if out == STANDARD_OUTPUT:
        fetched.save(sys.stdout.buffer)
        return
    place = Path(out or fetched.name or f"{run_id}.{format_}")
    if out is None and place.exists():
        raise InvalidInput(f"{place} is there already; give the name of a file with --out.", "out")
    check_place(place)
    try:
        written = _save(fetched, place)
    except OSError as error:
        raise InvalidInput(f"{place} cannot be written ({error.strerror}).", "out") from None
    click.echo(f"{place}: {written} bytes", err=True)


def _save(fetched: Download, place: Path) -> int:
    with tempfile.NamedTemporaryFile(dir=place.absolute().parent, prefix=f".{place.name}.", delete=False) as stream:
        try:
            written = fetched.save(stream)
            stream.flush()
            os.fsync(stream.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(stream.name, 0o666 & ~mask)
            os.replace(stream.name, place)
        except BaseException:
            os.unlink(stream.name)
            raise
    return written
