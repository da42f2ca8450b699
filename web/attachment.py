"""A file that is written while it is sent."""

from urllib.parse import quote

from flask import Response
from werkzeug.http import dump_options_header

from tasks.files.write import Export


def response(made: Export) -> Response:
    """``made`` as a download under its own name, whatever characters that has (RFC 6266)."""
    plain = made.name.encode("ascii", "ignore").decode() or "export"
    disposition = dump_options_header("attachment", {"filename": plain})
    return Response(
        made.pieces,
        mimetype=made.media,
        headers={"Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(made.name, safe='')}"},
    )
