"""The command line: every command reads arguments, calls the library, and prints; it has no logic of its own."""
