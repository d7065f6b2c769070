"""The parts of the benchmark, each one question of DESIGN 12."""
