"""Operations the router is made of: one folder an operation, `reference.py` in it is the specification."""
