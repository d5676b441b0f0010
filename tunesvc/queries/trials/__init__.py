"""Trials as rows: filters, pages, columns, results, metrics, events of their attempts."""
