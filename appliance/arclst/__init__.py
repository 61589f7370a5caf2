"""ARCLST, the cluster: its members, flows and users in one database with one writer."""
