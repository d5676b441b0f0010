"""Pruners: by learning curves (`curve`), by successive halving with pauses, and the audit of pruned trials."""
