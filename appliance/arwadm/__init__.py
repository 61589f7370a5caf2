"""ARWADM: the web administration console."""
