"""The pages and the API, in Flask."""

from web.app import create_app

__all__ = ["create_app"]
