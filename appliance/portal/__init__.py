"""The configuration portal: flows."""
