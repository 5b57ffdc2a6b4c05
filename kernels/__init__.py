"""Operations the router is made of, one folder each.

`reference.py` in it is the specification in torch, `triton.py` the kernel, `launch.py` its sizes, checks and grid.
`inventory.py` lists every compiled form a router needs, `aot.py` compiles them for a GPU that need not be here,
`tune.py` measures tiles on one that is, `configs/` holds the tiles.
"""
