"""Tests of an algorithm: the rules of the interface, and recorded numbers of other implementations."""
