"""Generators of other papers that train, and are explored and measured, by the same commands."""
