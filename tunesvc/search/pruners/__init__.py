"""Pruners: successive halving with pauses, and the audit of pruned trials."""
