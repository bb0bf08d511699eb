"""The commands.  Thin: each reads its words and calls the half that does the work."""
