"""Champions of families that servers watch."""
