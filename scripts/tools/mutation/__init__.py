"""Mutation testing: small faults planted one at a time, each of which a test has to notice."""
