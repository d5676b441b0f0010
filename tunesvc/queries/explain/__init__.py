"""Explanations: reasons of proposals and of pruning, effects of parameters, audits."""
