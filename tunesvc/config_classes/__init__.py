"""Functions of a config: `train(config: Config)`, where `Config` is a dataclass or pydantic model.

Their fields are parameters and constants by dotted names, `optimizer.lr`. Imports pydantic never:
its models are known by their attributes.
"""
