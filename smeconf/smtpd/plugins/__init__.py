"""The plugins, one file each, by the names that stand in a plugin list."""
