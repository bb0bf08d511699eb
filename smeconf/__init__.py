"""smeconf: a mail filter steered by a key/property database, templates and events.

Nothing is imported here: ``config getprop`` starts through this module.
"""
