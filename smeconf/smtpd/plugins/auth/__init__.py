"""Plugins that verify who a client says it is."""
