"""Search: samplers and pruners by name, and the optimizer of one study."""
