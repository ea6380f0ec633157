"""Benchmarks: whole commands, each beside what a user would do instead, interleaved in one run. `make bench` prints the tables."""
