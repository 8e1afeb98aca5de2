"""One file for one more piece of knowledge."""
