"""Champions: promotion, rollback, and `tune watch`, which replaces one when the data have changed.

The history is in `db.champions`, the tests of drift in `drift`.
"""
