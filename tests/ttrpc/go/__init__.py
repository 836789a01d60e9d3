"""A peer written in Go, and how it is built."""
