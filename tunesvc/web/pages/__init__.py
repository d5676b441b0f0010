"""One module per page, each with a `router`.

A page reads, and renders a template of its own name.
"""
