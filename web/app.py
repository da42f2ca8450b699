"""The Flask factory."""

from typing import Any

from flask import Flask, Response, redirect, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from tasks.errors import TouchstoneError
from tasks.service import Service
from tasks.settings import Settings
from web import api, health, language, openai, security
from web.figures import Figures
from web.pages import arena, batches, benchmark, files, growth, models, report, run
from web.radar import radar_plot
from web.schema.answers import Error, Problem

MAX_BYTES = 20 * 2**20
MAX_FILE_BYTES = 2 * 2**30
RETRY_SECONDS = 5
TAKE_FILES = {"batches.look", "api.upload"}  # read as streams
PAGES = (arena, batches, benchmark, files, growth, models, report, run)


def create_app(settings: Settings | None = None) -> Flask:
    """An app for ``settings``, by default those of the environment. Raises `ConfigurationError`."""
    settings = settings or Settings.from_environment()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=security.secret_key(settings.data),
        MAX_CONTENT_LENGTH=MAX_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_BYTES,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.extensions["touchstone"] = service = Service(settings)
    app.extensions["touchstone.figures"] = Figures(service)
    app.before_request(_allow_files)
    app.before_request(security.prepare)  # before the CSRF check, whose error page needs it too
    app.before_request(_refuse_nul)
    csrf = CSRFProtect(app)
    interfaces = (api.blueprint, openai.blueprint)
    for blueprint in interfaces:
        csrf.exempt(blueprint)
    for blueprint in (*interfaces, health.blueprint, language.blueprint, *(page.blueprint for page in PAGES)):
        app.register_blueprint(blueprint)
    app.context_processor(language.template_values)
    app.after_request(security.add_headers)
    app.after_request(_say_when)
    for kind in (TouchstoneError, HTTPException):
        app.register_error_handler(kind, _show_error)
    # Plotly loads itself at its first figure, templates are compiled at first use: better now than under a visitor.
    radar_plot([], [])
    for name in app.jinja_env.list_templates(["html"]):
        app.jinja_env.get_template(name)
    app.add_url_rule("/favicon.ico", view_func=lambda: redirect("/static/icon.svg"))
    return app


def _refuse_nul() -> None:
    """PostgreSQL cannot even be asked for an id with a NUL."""
    if any("\x00" in str(value) for value in (request.view_args or {}).values()):
        raise NotFound


def _allow_files() -> None:
    if request.endpoint in TAKE_FILES:
        request.max_content_length = MAX_FILE_BYTES


def _say_when(response: Response) -> Response:
    if response.status_code == 503:
        response.headers.setdefault("Retry-After", str(RETRY_SECONDS))
    return response


def _show_error(error: Any) -> ResponseReturnValue:
    """Errors in the form that was asked for: JSON under /api and /v1, else a page that says what to do."""
    if openai.errors.is_asked():
        return openai.errors.shown(error)
    if isinstance(error, TouchstoneError):
        code, status, message, field = error.code, error.status, error.message, error.field
    else:
        code, status, field = error.name.lower().replace(" ", "_"), error.code or 500, None
        message = error.description or error.name
    is_api = request.path.startswith("/api/") or request.path in ("/healthz", "/readyz")
    if isinstance(error, CSRFError):
        message = language.translate("error.csrf")
    elif isinstance(error, (NotFound, MethodNotAllowed, RequestEntityTooLarge)) and not is_api:
        message = language.translate(f"error.http.{status}")
    headers = {"Allow": ", ".join(error.valid_methods or ())} if isinstance(error, MethodNotAllowed) else {}
    if is_api:
        problem = Error(error=Problem(code=code, message=message, field=field))
        return problem.model_dump(mode="json"), status, headers
    return render_template("error.html", status=status, message=message), status, headers
