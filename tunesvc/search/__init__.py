"""The search: samplers and pruners by name, and the optimizer that asks, reports,
prunes and tells over one study."""
