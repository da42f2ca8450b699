"""Schemas of the API: they check requests, name the wrong field, and are what the OpenAPI document is made from."""
