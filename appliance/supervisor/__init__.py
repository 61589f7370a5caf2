"""The supervisor: what should be, what is, and the steps between the two."""
