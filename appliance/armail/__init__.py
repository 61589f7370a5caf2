"""ARMAIL: administrative and notification mail, out through the configured smarthost."""
