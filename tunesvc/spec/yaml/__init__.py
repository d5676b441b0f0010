"""study.yaml as text: parsing with positions, unquoted values, short forms, and error messages."""
