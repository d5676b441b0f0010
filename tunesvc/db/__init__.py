"""Postgres: engine, embedded server, schema, Optuna's storage, the writer of running studies."""
