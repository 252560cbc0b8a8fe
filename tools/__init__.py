"""Makes what this repository has built in and shows on its pages: `make builtin`, `make pictures`."""
