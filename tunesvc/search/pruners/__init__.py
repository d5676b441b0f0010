"""Pruners by learning curves and by successive halving, and the audit of pruned trials."""
