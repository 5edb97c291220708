"""Who may do what: accounts, log-in, tokens for programs, and the audit log."""
