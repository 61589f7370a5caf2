"""The queue: a named broker (`lan/cluster/name`) for work, events and calls, and the client that components use."""
