"""The internal DNS: every name of the cluster, and the way to the outside's resolvers."""
