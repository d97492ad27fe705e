"""The rows of the matrix, one module each, with its `ROW`."""
