"""Who may do what in the local cloud: roles' own credentials, and every request decided by their policies."""
