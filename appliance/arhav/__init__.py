"""ARHAV, health: finds out which servers are up and how fast, and whether the box does its job."""
