"""What the RFCs say of lists and of mail authentication; no server in it.

These modules take addresses, names and a resolver, and return what they found.
"""
