"""Forms of objectives: plain functions, Optuna's, Ray Tune's, programs."""
