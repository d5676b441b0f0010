"""Postgres: the engine and embedded server, the schema, Optuna's storage, and the ledger."""
