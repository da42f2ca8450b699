"""The version, in one place: pyproject.toml, the API and reports read it here."""

VERSION = "0.2.0"
