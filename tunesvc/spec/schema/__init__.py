"""The JSON Schema of study.yaml, and the reference of its keys."""
