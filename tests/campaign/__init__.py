"""The reliability campaign: every fault that a run must survive, made on purpose and counted.

row         what a row of the matrix is, and finding them
rows/       one module a row; each runs at any size
report      docs/reliability.md from what the rows found
__main__    the campaign at full size: make campaign
test_slices a small slice of every row, in the default tests
"""
