"""The service that this app was made with."""

from typing import cast

from flask import current_app

from tasks.service import Service


def service() -> Service:
    return cast(Service, current_app.extensions["touchstone"])
