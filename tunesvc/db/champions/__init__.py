"""Champions: the configurations that production uses, their history, and its announcements."""
