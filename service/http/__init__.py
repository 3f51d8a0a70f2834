"""HTTP: the app, its endpoints and the OpenAPI."""
