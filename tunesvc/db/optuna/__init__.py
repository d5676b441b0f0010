"""Optuna's storage protocol on our tables."""
