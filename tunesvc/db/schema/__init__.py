"""Tables, states, identifiers and migrations."""
