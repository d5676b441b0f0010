"""Pages of accounts: signing in, tokens, projects and their members, the audit log."""
