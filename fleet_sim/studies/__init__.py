"""Studies: grids of experiments with simulated fleets, each with its table, its picture and its expected ranges."""
