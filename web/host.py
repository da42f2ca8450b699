"""The service and the figures that this app was made with."""

from typing import cast

from flask import current_app

from tasks.service import Service
from web.figures import Figures


def service() -> Service:
    return cast(Service, current_app.extensions["touchstone"])


def figures() -> Figures:
    return cast(Figures, current_app.extensions["touchstone.figures"])
