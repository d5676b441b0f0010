"""Samplers of other libraries, as Optuna samplers for `sampler: {class: ...}`."""
