"""Users and what is kept about them: accounts, the audit log, personal data."""
