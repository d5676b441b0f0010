"""study.yaml as text: parsed with positions, unquoted values and short forms read, mistakes named by line."""
