"""The typed messages components exchange, and the documents the supervisor hands to them."""
