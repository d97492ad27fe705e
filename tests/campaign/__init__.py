"""The reliability campaign: every fault that a run must survive, made on purpose and counted.

row         what a row of the matrix is, and finding them
rows/       one module a row; each runs at any size
processes   runs forked from a server that has imported torch (warm) and has its own clock (wall)
commands    the real command, forked or executed, in a file or a pseudo-terminal
story       what of a run must not depend on how it came to its end
report      docs/reliability.md from what the rows found
__main__    the campaign at full size: make campaign
test_slices a small slice of every row, in the default tests
"""
