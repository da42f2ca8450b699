"""Benchmark: the radar over GRACE, with n and intervals."""

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue
from plotly.offline import get_plotlyjs

from tasks.measures.grace_texts import text
from web import language
from web.host import figures, service

blueprint = Blueprint("benchmark", __name__)


@blueprint.get("/benchmark")
def show() -> ResponseReturnValue:
    names = service().registry.choose(request.args.getlist("models"))
    chosen = figures().standing(language.current(), names)
    return render_template("benchmark.html", standing=chosen, names=names, all_names=service().registry.names)


@blueprint.get("/plotly.js")
def plotly_js() -> ResponseReturnValue:
    """Plotly's own script, from its Python package: pages load nothing from elsewhere."""
    response = Response(get_plotlyjs(), mimetype="text/javascript")
    response.cache_control.public = True
    response.cache_control.max_age = 86_400
    response.add_etag()
    return response.make_conditional(request)


@blueprint.app_template_global()
def grace_text(key: str) -> str:
    return text(key, language.current())
