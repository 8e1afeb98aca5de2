"""What the kernels are compiled from: vectors of lanes, tiles of registers, and how it is compiled and kept."""
